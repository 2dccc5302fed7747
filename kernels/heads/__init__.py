"""What classification heads say of embeddings: logits, and the scores that heads are compared by.

One head alone is asked in plain PyTorch (`engine.heads.TaskHead.logits_and_scores`), which defines what is
computed and is what runs on a CPU. On a GPU many heads are asked at once (`kernels.heads.fused`).
"""

# Of a mean of class vectors, its squared length: what is shorter is no direction that they have in common.
LEAST_COMMON = 1e-2
LEAST_SQUARE = 1e-6  # of what is left of an embedding or a class vector: shorter ones have no direction
SCORES = 3  # that a head gives an embedding (see `router.head_scores`)
BESIDE = SCORES + 1  # what kernels say beside logits: the scores, and 1 where every logit is finite, else 0
