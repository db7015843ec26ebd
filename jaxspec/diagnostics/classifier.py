"""Where is a posterior wrong, in any of its shape: the local classifier two-sample test, L-C2ST (Linhart,
Gramfort & Rodrigues 2023, arXiv:2306.03580).

A classifier learns to tell the true labels from a draw, given what the posterior says of the star. Where
draws are as good as truths it can't, and its answer is one half. The statistic of a star is how far from one
half it is on average over the star's own draws (their equation 9), so no truth is needed to look at a star.

What is usual is only shown by classifiers that had nothing to learn: for them each star's truth and draw are
swapped by the toss of a coin. A right posterior's truth and draw are exchangeable, so the p-values are exact,
however well the classifiers learn and though stars are those of the training.

The classifier is regularised least squares with a kernel (answers 1 and 0 are fitted as numbers; Rifkin, Yeo
& Poggio 2003, "Regularized least-squares classification"). Its matrix is factorised once and serves every
swap, so hundreds of them cost little more than one; on a thousand stars a small perceptron, which learns half
of them by heart, told less. It looks everywhere at once: what a test made for one fault sees (widths: the
ranks; draws off the manifold of true stars: TARP), it may miss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve

from jaxspec.diagnostics.calibration import check_draws
from jaxspec.errors import InputError


@dataclass(frozen=True)
class ClassifierConfig:
    """How the classifiers of `local_test` are made.

    Attributes:
        n_null: classifiers that have nothing to learn; the smallest p-value is 1 / (n_null + 1).
        n_draws: draws of each star by which it is judged.
        penalty: precision of the weights' prior in units of the noise of one answer.
    """

    n_null: int = 199
    n_draws: int = 20
    penalty: float = 5.0


class LocalTest(NamedTuple):
    """Outcome of the classifiers.

    Attributes:
        statistic: mean squared distance of the answer from one half at each star, `[n]`.
        null: the same of the classifiers that had nothing to learn, `[n_null, n]`.
        p: p-value of each star, `[n]`. One classifier serves all stars: they are not independent.
        p_global: p-value of the mean over stars, the one to judge a posterior by.
    """

    statistic: Float[np.ndarray, " n"]
    null: Float[np.ndarray, "m n"]
    p: Float[np.ndarray, " n"]
    p_global: float


def local_test(
    truth: Float[np.ndarray, "n l"],
    draws: Float[np.ndarray, "s n l"],
    config: ClassifierConfig = ClassifierConfig(),
    seed: int = 0,
) -> LocalTest:
    """Test draws against truths, star by star and over all. Time and memory grow as the square of the number
    of stars: 2000 take half a minute and 1 GB.

    The classifier sees the labels whitened by mean and covariance of the star's other draws and, as what is
    known of the star, mean and log of the standard deviation of those: a summary of the posterior, not the
    spectrum.

    Raises: InputError for draws of other stars, or too few draws for a covariance.
    """
    truth, draws = check_draws(truth, draws)
    n_draws, n, n_label = draws.shape
    if n_draws < 4 * n_label or n < 20:
        raise InputError(
            "local_test",
            f"{n_draws} draws of {n} stars with {n_label} labels",
            f"at least {4 * n_label} draws of 20 stars",
            "draw more",
        )
    # The first draw is set against the truth; nothing else may depend on it.
    rest = draws[1:].astype(np.float64)
    mean, scale, root = _moments(rest)

    near = _nearness(np.concatenate([mean, np.log(scale)], axis=1))

    def whiten(labels):
        # A few draws far out in the tails would own the fit.
        return np.clip(np.einsum("nij,nj->ni", root, (labels - mean) / scale), -5.0, 5.0)

    examples = np.concatenate([whiten(truth), whiten(draws[0])])
    gram = _kernel(examples, examples) * np.tile(near, (2, 2))
    gram[np.diag_indices(2 * n)] += config.penalty
    coin = np.random.default_rng(seed).integers(0, 2, (n, config.n_null))
    swap = np.concatenate([np.ones((n, 1)), 2.0 * coin - 1.0], axis=1)
    # Answers are 1/2 + 1/2 for the truth and 1/2 - 1/2 for the draw.
    weights = cho_solve(cho_factor(gram, overwrite_a=True), 0.5 * np.concatenate([swap, -swap]))
    total = np.zeros_like(swap)
    judges = rest[:: max(1, len(rest) // config.n_draws)][: config.n_draws]
    for draw in judges:
        total += np.square((_kernel(whiten(draw), examples) * np.tile(near, (1, 2))) @ weights)
    statistic, null = total[:, 0] / len(judges), total[:, 1:].T / len(judges)
    return LocalTest(
        statistic, null, _p_value(statistic, null), float(_p_value(statistic.mean(), null.mean(axis=1)))
    )


def _moments(draws: Float[np.ndarray, "s n l"]):
    """Mean and standard deviation `[n, l]` of each star's draws, and the inverse root of their
    correlations."""
    mean = draws.mean(axis=0)
    centred = draws - mean
    covariance = np.einsum("snl,snk->nlk", centred, centred, optimize=True) / (len(draws) - 1)
    scale = np.maximum(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), 1e-12)
    correlation = covariance / (scale[:, :, None] * scale[:, None, :])
    # A little on the diagonal, or labels that always go together would have no inverse.
    return mean, scale, np.linalg.inv(np.linalg.cholesky(correlation + 1e-6 * np.eye(draws.shape[2])))


def _kernel(a: Float[np.ndarray, "i l"], b: Float[np.ndarray, "j l"]) -> Float[np.ndarray, "i j"]:
    """What the classifier can see in whitened labels: offsets (linear), widths and correlations (products of
    two labels), and any other shape (a Gaussian kernel); each has a trace of one third."""
    n_label = a.shape[1]
    dot, size_a, size_b = a @ b.T, np.sum(a * a, axis=1)[:, None], np.sum(b * b, axis=1)[None]
    # The sum over i <= j of (a_i a_j - [i = j]) (b_i b_j - [i = j]).
    products = 0.5 * (dot * dot + (a * a) @ (b * b).T) - size_a - size_b + n_label
    gaussian = np.exp(-0.5 * (size_a + size_b - 2.0 * dot) / n_label)
    return (dot / n_label + products / (0.5 * n_label * (n_label + 3)) + gaussian) / 3.0


def _nearness(summary: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n n"]:
    """How much of what is wrong two stars share: a part wherever they are, a part that changes steadily with
    the summary, and a part only if they are alike."""
    x = (summary - summary.mean(axis=0)) / np.maximum(summary.std(axis=0), 1e-9)
    size, dot = np.sum(x * x, axis=1), x @ x.T
    squared = np.maximum(size[:, None] + size[None] - 2.0 * dot, 0.0)
    alike = np.exp(-0.5 * squared / (0.3 * np.median(squared) + 1e-12))
    return 0.25 + 0.25 * dot / x.shape[1] + 0.5 * alike


def _p_value(found, null):
    return (1 + np.sum(null >= found, axis=0)) / (len(null) + 1)
