"""The two kernels of heads; `kernels.heads.fused` says what they are for."""

import triton
import triton.language as tl

from mass_serve.kernels.heads import LEAST_COMMON, LEAST_SQUARE
from mass_serve.kernels.records import HeadField

RECORD: tl.constexpr = tl.constexpr(len(HeadField))
WEIGHT: tl.constexpr = tl.constexpr(HeadField.WEIGHT.value)
BIAS: tl.constexpr = tl.constexpr(HeadField.BIAS.value)
SCALE: tl.constexpr = tl.constexpr(HeadField.SCALE.value)
DIRECTIONS: tl.constexpr = tl.constexpr(HeadField.DIRECTIONS.value)
ALONG: tl.constexpr = tl.constexpr(HeadField.ALONG.value)
LENGTHS: tl.constexpr = tl.constexpr(HeadField.LENGTHS.value)
COMMON: tl.constexpr = tl.constexpr(HeadField.COMMON.value)
CLASSES: tl.constexpr = tl.constexpr(HeadField.CLASSES.value)
ANY_NUMBER: tl.constexpr = tl.constexpr(HeadField.ANY_NUMBER.value)
LEAST_LENGTH: tl.constexpr = tl.constexpr(1e-12)  # of an embedding, as `torch.nn.functional.normalize` has it
LEAST_OF_MEAN: tl.constexpr = tl.constexpr(LEAST_COMMON)
LEAST_LEFT: tl.constexpr = tl.constexpr(LEAST_SQUARE)


@triton.jit
def pointer(record, field: tl.constexpr, ALIGN: tl.constexpr):
    """The address of float32 numbers that stands in a field of a record."""
    return tl.multiple_of(tl.load(record + field).to(tl.pointer_type(tl.float32)), ALIGN)


@triton.jit
def number(record, field: tl.constexpr):
    """The float32 whose bits stand in a field of a record."""
    return tl.load(record + field).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def products_kernel(
    x,
    y,
    c,
    items,
    table,
    width,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
    SUM: tl.constexpr,
):
    """An item's logits, in y, and cosines, in the same places of c, for the classes of one block."""
    item = items + 3 * tl.program_id(0).to(tl.int64)
    record = table + tl.load(item) * RECORD
    count = tl.load(record + CLASSES).to(tl.int32)
    if tl.program_id(1) * BLOCK >= count:
        return
    z, start_of_item = x + tl.load(item + 1) * width, tl.load(item + 2)
    classes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wanted = classes < count
    rows = classes.to(tl.int64)[:, None] * width
    weight, directions = pointer(record, WEIGHT, ALIGN), pointer(record, DIRECTIONS, ALIGN)
    squares = tl.zeros((SUM,), dtype=tl.float32)
    products = tl.zeros((BLOCK, SUM), dtype=tl.float32)
    for start in range(0, width, SUM):
        d = start + tl.arange(0, SUM)
        of_width = d < width
        own = tl.load(z + d, mask=of_width, other=0.0).to(tl.float32)
        w = tl.load(weight + rows + d[None, :], mask=wanted[:, None] & of_width[None, :], other=0.0)
        squares += own * own
        products += w * own[None, :]
    length = tl.maximum(tl.sqrt(tl.sum(squares)), LEAST_LENGTH)
    of_weight = tl.sum(products, axis=1)
    along = of_weight
    if tl.load(record + DIRECTIONS) != tl.load(record + WEIGHT):
        products = tl.zeros((BLOCK, SUM), dtype=tl.float32)
        for start in range(0, width, SUM):
            d = start + tl.arange(0, SUM)
            of_width = d < width
            own = tl.load(z + d, mask=of_width, other=0.0).to(tl.float32)
            w = tl.load(directions + rows + d[None, :], mask=wanted[:, None] & of_width[None, :], other=0.0)
            products += w * own[None, :]
        along = tl.sum(products, axis=1)
    logits = of_weight / length * number(record, SCALE)
    if tl.load(record + BIAS) != 0:
        bias = pointer(record, BIAS, 4)
        logits = of_weight + tl.load(bias + classes, mask=wanted, other=0.0)
    tl.store(y + start_of_item + classes, logits, mask=wanted)
    tl.store(c + start_of_item + classes, along / length, mask=wanted)


@triton.jit
def scores_kernel(y, c, items, table, BLOCK: tl.constexpr):
    """An item's scores and whether it is finite, behind its logits in y, by those and its cosines c."""
    item = items + 3 * tl.program_id(0).to(tl.int64)
    record = table + tl.load(item) * RECORD
    count = tl.load(record + CLASSES).to(tl.int32)
    any_number = tl.load(record + ANY_NUMBER) != 0
    common = number(record, COMMON)
    logits, cosines = y + tl.load(item + 2), c + tl.load(item + 2)
    finite = tl.full((), 1, dtype=tl.int32)
    sums = tl.zeros((BLOCK,), dtype=tl.float32)
    nearest = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    highest = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < count
        cosine = tl.load(cosines + at, mask=inside, other=0.0)
        sums += cosine
        sized = tl.where(any_number, tl.abs(cosine), cosine)
        nearest = tl.maximum(nearest, tl.where(inside, sized, float("-inf")))
        logit = tl.load(logits + at, mask=inside, other=0.0)
        highest = tl.maximum(highest, tl.where(inside, logit, float("-inf")))
        finite &= tl.min((tl.abs(logit) < float("inf")).to(tl.int32))
    mean, peak = tl.sum(sums) / count, tl.max(highest)
    taken = mean / (common + LEAST_OF_MEAN)
    left = tl.sqrt(tl.maximum(1 - 2 * taken * mean + taken * taken * common, LEAST_LEFT))
    clearest = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    powers = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < count
        along = tl.load(pointer(record, ALONG, 4) + at, mask=inside, other=0.0)
        lengths = tl.load(pointer(record, LENGTHS, 4) + at, mask=inside, other=1.0)
        cosine = tl.load(cosines + at, mask=inside, other=0.0)
        centred = (cosine - mean - taken * (along - common)) / (left * lengths)
        sized = tl.where(any_number, tl.abs(centred), centred)
        clearest = tl.maximum(clearest, tl.where(inside, sized, float("-inf")))
        powers += tl.exp(tl.load(logits + at, mask=inside, other=float("-inf")) - peak)
    of_one, of_any = -tl.log(tl.sum(powers)), -tl.log(1 + tl.exp(-tl.abs(peak)))
    tl.store(logits + count, tl.max(nearest))
    tl.store(logits + count + 1, tl.max(clearest))
    tl.store(logits + count + 2, tl.where(any_number, of_any, of_one))
    tl.store(logits + count + 3, finite.to(tl.float32))
