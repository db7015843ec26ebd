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
from jaxspec.flows.spline import RationalQuadraticSpline


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

    (Durkan et al. 2019, arXiv:1906.04032.) A spline can be so flat somewhere (a derivative of 1e-10 has been
    seen with random weights) that it cannot be inverted, even in double precision. Two limits prevent that:
    `min_bin` is the least width and height of a bin, and the raw slopes at the knots stay within
    +-`slope_clamp` (0: no limit). With a fifth of an even share and 2.5, float32 inverts everything.
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
        min_bin: float = 1e-3,
        slope_clamp: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.n_dim, self.split, self.n_bins, self.bound = n_dim, n_dim // 2, n_bins, bound
        self.min_bin, self.slope_clamp = min_bin, slope_clamp
        n_out = (n_dim - self.split) * (3 * n_bins + 1)
        self.conditioner = Conditioner(self.split, n_context, n_out, width=width, depth=depth, rngs=rngs)

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        features = self.conditioner.context_features(context)
        shape = (self.n_dim - self.split, 3 * self.n_bins + 1)

        def inner(parameters: Float[Array, "*n k"]) -> distrax.Bijector:
            parameters = parameters.reshape(*parameters.shape[:-1], *shape)
            sizes, slopes = parameters[..., : 2 * self.n_bins], parameters[..., 2 * self.n_bins :]
            if self.slope_clamp > 0:
                slopes = soft_clamp(slopes, self.slope_clamp)
            return RationalQuadraticSpline(sizes, slopes, self.bound, self.min_bin)

        return distrax.SplitCoupling(self.split, 1, lambda x: self.conditioner(x, features), inner)
