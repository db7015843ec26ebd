"""Coupling layers: one half of the variables is transformed elementwise, given the other half and the
context.

Each is a Flax module whose method ``bijector(context)`` returns a Distrax bijector; the part of the
conditioner that reads the context is evaluated there, once per star, and serves every draw. Bijectors are
built inside the jitted function that uses them and never returned from it.
"""

import distrax
from flax import nnx
from jaxtyping import Array, Float

from jaxspec.flows.affine import soft_clamp
from jaxspec.flows.conditioner import Conditioner


class AffineCoupling(nnx.Module):
    """Scale and shift of the second half: y2 = x2 exp(s) + t, with |s| below `clamp`.

    The soft clamp (2/pi) clamp atan(...) and the default 1.9 are those of the GLOW coupling of FrEIA. (Dinh
    et al. 2017, arXiv:1605.08803; Kingma & Dhariwal 2018, arXiv:1807.03039.)
    """

    def __init__(
        self, n_dim: int, n_context: int, *, width: int, depth: int = 2, clamp: float = 1.9, rngs: nnx.Rngs
    ):
        self.n_dim, self.split, self.clamp = n_dim, n_dim // 2, clamp
        n_out = 2 * (n_dim - self.split)
        self.conditioner = Conditioner(self.split, n_context, n_out, width=width, depth=depth, rngs=rngs)

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        features = self.conditioner.context_features(context)
        n = self.n_dim - self.split

        def inner(parameters: Float[Array, "*n k"]) -> distrax.Bijector:
            return distrax.ScalarAffine(
                shift=parameters[..., :n], log_scale=soft_clamp(parameters[..., n:], self.clamp)
            )

        return distrax.SplitCoupling(self.split, 1, lambda x: self.conditioner(x, features), inner)


class SplineCoupling(nnx.Module):
    """Monotone rational-quadratic spline of the second half on [-bound, bound], the identity outside.

    (Durkan et al. 2019, arXiv:1906.04032.) The smallest bin and slope, 1e-3, bound how sharp a density can
    get and keep float32 inverses accurate.
    """

    def __init__(
        self,
        n_dim: int,
        n_context: int,
        *,
        width: int,
        depth: int = 2,
        n_bins: int = 8,
        bound: float = 5.0,
        rngs: nnx.Rngs,
    ):
        self.n_dim, self.split, self.n_bins, self.bound = n_dim, n_dim // 2, n_bins, bound
        n_out = (n_dim - self.split) * (3 * n_bins + 1)
        self.conditioner = Conditioner(self.split, n_context, n_out, width=width, depth=depth, rngs=rngs)

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        features = self.conditioner.context_features(context)
        shape = (self.n_dim - self.split, 3 * self.n_bins + 1)

        def inner(parameters: Float[Array, "*n k"]) -> distrax.Bijector:
            return distrax.RationalQuadraticSpline(
                parameters.reshape(*parameters.shape[:-1], *shape),
                -self.bound,
                self.bound,
                boundary_slopes="identity",
                min_bin_size=1e-3,
                min_knot_slope=1e-3,
            )

        return distrax.SplitCoupling(self.split, 1, lambda x: self.conditioner(x, features), inner)
