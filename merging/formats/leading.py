"""The leading singular triplets of a matrix by a block Krylov method, with a bound on what they miss.

A fine-tuning's blocks keep few of a matrix's singular vectors, and a decomposition of the whole computes all
of them. Here `A [n, k]` is projected on the Krylov space of `G = A A^T` and a random start X [n, b],

    K = [X, G X, .., G^(q-1) X],   q b a few times the rank,

and the best vectors within it are kept (Musco and Musco, arXiv:1504.05477, algorithm 2; Halko, Martinsson and
Tropp, arXiv:0909.4061, section 4.5). Their theorems are about the average start; what counts here is
measured on every matrix, by `missed_energy_is_small`. Large products are in float32, orthonormal bases and
singular values in float64. X depends on the shapes alone: the same matrix gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The energy that the vectors may miss, of what their number times the least kept energy makes. It lets flat
# spectra pass, whose next vectors are nearly as good; where the spectrum decays, far less is missed.
TOLERANCE = 0.02
# And of all kept energy: what float32 leaves uncertain.
FLOAT32_TOLERANCE = 1e-5
_SMALLEST_BLOCK = 4
_ORTHONORMAL = 1e-4
_CHOLESKY_ROWS = 192
# Of the largest energy. The eigenvectors of a float64 Gram matrix leave smaller ones less than orthogonal.
_SMALLEST_SHARE = 1e-8
# Beyond, squares are infinite in float32, or too many of them zero.
_SMALLEST_ENERGY, _LARGEST_ENERGY = 1e-30, 1e30


def leading_singular_vectors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Computes u [n, R], s [R], vh [R, k] of a float32 matrix [n, k] with n <= k, in float64.

    None where the bound on what they miss is not met, or a decomposition of the whole is as quick: then the
    caller computes that.
    """
    rows, columns = matrix.shape
    # The first row tells nearly always, and at once.
    if not matrix[0].any() and not matrix.any():  # as an adapter leaves most matrices
        return torch.eye(rows, rank), torch.zeros(rank), torch.eye(rank, columns)
    if _usual_size(rank) > rows // 2:
        return None
    gram = _gram(matrix)
    energy = float(gram.trace())
    if not _SMALLEST_ENERGY < energy < _LARGEST_ENERGY:
        return None
    gram /= energy  # squares of it are finite, too
    for size in _sizes(gram, rank):
        u, _ = torch.linalg.qr(_leading_in_krylov_space(gram, rank, size).double())
        # The exact decomposition of u u^T A: what it misses is the choice of u alone.
        u, s, vh = _decomposed(u, (u.T.float() @ matrix).double())
        if missed_energy_is_small(gram, u.float(), (s.square() / energy).float()):
            return u, s, vh
    return None


def _decomposed(u: Tensor, product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the decomposition of `u product`, of orthonormal u [n, R] and a product [R, k], in float64.

    The Gram matrix of the product, a few times quicker than its QR decomposition, leaves rows orthonormal
    whose singular values are not far below the largest; where some are, the product is decomposed itself.
    """
    energies, left = torch.linalg.eigh(product @ product.T)
    if energies[0] > _SMALLEST_SHARE * energies[-1]:
        s = energies.flip(0).sqrt()
        left = left.flip(1)
        return u @ left, s, (left.T @ product) / s[:, None]
    q, r = torch.linalg.qr(product.T)
    right, s, turned = torch.linalg.svd(r)
    return u @ turned.T, s, (q @ right).T


def missed_energy_is_small(gram: Tensor, u: Tensor, energies: Tensor) -> bool:
    """Tells whether R orthonormal vectors u [n, R] keep nearly the energy that the best R vectors would.

    With `G [n, n]` and `theta_i = u_i^T G u_i` (descending) the energies that they keep, true means

        max over orthonormal Q [n, R] of tr(Q^T G Q)  <=  sum theta + E,
        E = 0.02 R theta_R + 1e-5 sum theta.

    The left side is the energy of the truncated decomposition (Fan's theorem, 1949). Either all the energy
    that there is, `tr G = ||A||_F^2`, is at most that; or some `tau` and `z >= 0` are found with

        G <= tau I + u diag(z) u^T,   R tau + sum z <= sum theta + E,

    as then `tr(Q^T G Q) <= R tau + sum z` for every Q. A Cholesky factorisation proves the first inequality.
    Half of E raises the smallest theta to tau, so that it lies above what u left out; half is shared out to z
    by the norms of the residuals `G u_i - theta_i u_i`, which u's coupling to the rest needs.
    """
    kept = float(energies.sum())
    allowed = TOLERANCE * len(energies) * float(energies[-1]) + FLOAT32_TOLERANCE * kept
    if float(gram.trace()) <= kept + allowed:
        return True
    tau = _raised(energies, allowed / 2)
    residuals = (gram @ u - u * energies).norm(dim=0)
    z = (energies - tau).clamp_min(0) + allowed / 2 * residuals / residuals.sum()
    difference = torch.addmm(gram, u * z, u.T, beta=-1)
    difference.diagonal().add_(tau)
    return _is_positive_definite(difference)


def _is_positive_definite(matrix: Tensor) -> bool:
    """Tells whether a symmetric matrix has a Cholesky factorisation; it is overwritten.

    Block by block, mostly in products, it takes 0.6 of the time of LAPACK's for 768 rows.
    """
    for start in range(0, len(matrix), _CHOLESKY_ROWS):
        end = start + _CHOLESKY_ROWS
        factor, info = torch.linalg.cholesky_ex(matrix[start:end, start:end])
        if int(info):
            return False
        below = torch.linalg.solve_triangular(factor, matrix[start:end, end:], upper=False)
        matrix[end:, end:].addmm_(below.T, below, alpha=-1)
    return True


def _raised(descending: Tensor, amount: float) -> float:
    """Returns the level to which the smallest numbers can all be raised by `amount` together."""
    ascending = descending.flip(0)
    counts = torch.arange(1, len(ascending) + 1)
    sums = ascending.cumsum(0)
    raised = int((ascending * counts - sums <= amount).sum())
    return (amount + float(sums[raised - 1])) / raised


def _sizes(gram: Tensor, rank: int) -> list[int]:
    """Returns the dimensions of the spaces to try, where they are few enough to be quick.

    The edge between what is kept and what is not takes a larger space where nothing stands out there; that
    a few directions stand out hides it at first.
    """
    rows = len(gram)
    usual, flat = _usual_size(rank), 3 * rank + rows // 8
    return [size for size in ((flat,) if _is_flat(gram, rank) else (usual, flat)) if size <= rows // 2]


def _usual_size(rank: int) -> int:
    return max(5 * rank // 2, 6 * _SMALLEST_BLOCK)


def _is_flat(gram: Tensor, rank: int) -> bool:
    """Tells whether the energy is spread over more directions than a small space can tell apart.

    Over how many is `(sum lambda)^2 / sum lambda^2`, the participation ratio.
    """
    return float(gram.trace()) ** 2 > 3 * rank * float(gram.square().sum())


def _gram(matrix: Tensor, parts: int = 4) -> Tensor:
    """Computes `A A^T` of A [n, k] with the products of one triangle of blocks: five eighths of them all."""
    rows = matrix.shape[0]
    gram = matrix.new_empty(rows, rows)
    step = -(-rows // parts)
    for start in range(0, rows, step):
        end = start + step
        gram[start:end, :end] = matrix[start:end] @ matrix[:end].T
        gram[:start, start:end] = gram[start:end, :start].T
    return gram


def _leading_in_krylov_space(gram: Tensor, rank: int, size: int) -> Tensor:
    """Returns the R best directions [n, R] of a Krylov space of about `size` dimensions."""
    rows = gram.shape[0]
    # Narrow blocks make polynomials of high degree, wide ones quick products.
    width = max(_SMALLEST_BLOCK, rank // 6)
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(rows, width, generator=generator).T
    # Vectors are rows here, which lie together.
    basis = gram.new_empty(size // width * width, rows)
    images = torch.empty_like(basis)  # basis @ gram
    for start in range(0, len(basis), width):
        end = start + width
        basis[start:end] = torch.linalg.qr(block.T)[0].T
        torch.mm(basis[start:end], gram, out=images[start:end])
        block = images[start:end]
        for _ in range(2):  # once leaves what makes later blocks repeat what earlier ones have
            block = block - (block @ basis[:end].T) @ basis[:end]
    # Where a block has less to add than rounding, it is no longer orthogonal to those before.
    if not _is_orthonormal(basis):
        basis = torch.linalg.qr(basis.T)[0].T
        images = basis @ gram
    _, vectors = torch.linalg.eigh(images @ basis.T)
    leading: Tensor = basis.T @ vectors[:, -rank:].flip(1)
    return leading


def _is_orthonormal(rows: Tensor) -> bool:
    products = rows @ rows.T
    products.diagonal().sub_(1)
    return float(products.abs().max()) < _ORTHONORMAL
