"""What sampling should do, in NumPy float64 with full stable sorts: slow, short and obviously right."""

import numpy as np

MASK32 = 0xFFFFFFFF


def random_bits(seed: int, choice: int, token_index: int, purpose: int = 0) -> int:
    """64 bits of Philox4x32-10 (Salmon et al. 2011) with counter (token_index, choice, purpose, 0)."""
    c, k = [token_index, choice, purpose, 0], [seed & MASK32, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK32, (a >> 32) ^ c[3] ^ k[1], a & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c[0] | c[1] << 32


def softmax(logits, temperature=1.0):
    x = np.asarray(logits, np.float64) / temperature
    with np.errstate(invalid="ignore"):
        w = (x == np.inf).astype(float) if x.max() == np.inf else np.exp(x - x.max())
    return w / w.sum()


def kept(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Return (mask of the tokens that stay, margin): min-p, then top-k, then top-p, ties by lower index.

    `margin` is how near, relative to 1, a comparison of floats was to going the other way.
    """
    x = np.asarray(logits, np.float64)
    p = softmax(x, temperature)
    order = np.argsort(-x, kind="stable")
    p = p[order]
    n, margin = len(x), np.inf
    if min_p > 0:
        ratio = p / p[0]
        n = int((ratio >= min_p).sum())
        margin = min(margin, np.abs(ratio[ratio != 1] / min_p - 1).min(initial=np.inf) if min_p > 1e-300 else np.inf)
    if top_k > 0:
        n = min(n, top_k)
    if top_p < 1:
        p = p[:n] / p[:n].sum()
        before = np.cumsum(p) - p
        margin = min(margin, np.abs(np.cumsum(p)[: n - 1] - top_p).min(initial=np.inf))
        n = max(1, int((before < top_p).sum()))
    mask = np.zeros(len(x), bool)
    mask[order[:n]] = True
    return mask & (x > -np.inf), margin


def draw(logits, mask, temperature, bits):
    """Return (token, margin): inverse of the distribution function over the kept tokens, in index order."""
    p = np.where(mask, softmax(logits, temperature), 0.0)
    cdf = np.cumsum(p) / p.sum()
    u = bits / 2**64
    token = int(np.searchsorted(cdf, u, side="right"))
    return token, float(np.abs(cdf - u).min())


def penalize(logits, prompt, output, repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0):
    x = np.array(logits, np.float64)
    for t in set(prompt) | set(output):
        x[t] = x[t] / repetition_penalty if x[t] > 0 else x[t] * repetition_penalty
    for t in set(output):
        x[t] -= frequency_penalty * list(output).count(t) + presence_penalty
    return x
