"""The published network for comparison: FrEIA coupling blocks conditioned by convolutions, as OssicoNN has
them.

Candebat et al. (2024, A&A 692, A228) infer labels of GIRAFFE spectra with a conditional invertible network: 4
GLOW blocks of width 512 with clamp 1.9 and a convolutional conditioner of three stages, 1-256-256-16 channels
with kernels 64 (stride 16), 128 and 4. Written from that description on FrEIA (Ardizzone et al. 2018-2022);
nothing of the authors' code is used. What the description leaves open is an argument here.
"""

import FrEIA.framework as framework
import FrEIA.modules as modules
import torch
from torch import nn


class Peer(nn.Module):
    """q(z | flux) for standardised unconstrained labels z. It sees the flux alone: it has no notion of
    errors.

    Args:
        n_label: labels.
        strides: of the three convolutions. The description gives the first; (16, 1, 1) is its letter.
        positions: length to which the last map is averaged before it is flattened into the condition.
    """

    def __init__(self, n_label: int = 9, strides: tuple[int, int, int] = (16, 1, 1), positions: int = 16):
        super().__init__()
        self.conditioner = nn.Sequential(
            nn.Conv1d(1, 256, 64, strides[0]),
            nn.LeakyReLU(),
            nn.Conv1d(256, 256, 128, strides[1]),
            nn.LeakyReLU(),
            nn.Conv1d(256, 16, 4, strides[2]),
            nn.LeakyReLU(),
            nn.AdaptiveAvgPool1d(positions),
            nn.Flatten(),
        )
        self.flow = framework.SequenceINN(n_label)
        for i in range(4):
            self.flow.append(
                modules.GLOWCouplingBlock,
                cond=0,
                cond_shape=(16 * positions,),
                subnet_constructor=_subnet,
                clamp=1.9,
            )
            self.flow.append(modules.PermuteRandom, seed=i)
        self.n_label = n_label

    def condition(self, flux: torch.Tensor) -> torch.Tensor:
        """Condition of each spectrum, from `flux [b, p]` about 1."""
        return self.conditioner((flux - 1.0)[:, None])

    def log_prob(self, z: torch.Tensor, flux: torch.Tensor) -> torch.Tensor:
        """Log-density of `z [b, l]`."""
        u, log_det = self.flow(z, c=[self.condition(flux)])
        return -0.5 * (u**2).sum(-1) - 0.5 * self.n_label * torch.log(torch.tensor(2 * torch.pi)) + log_det

    def sample(self, flux: torch.Tensor, n: int) -> torch.Tensor:
        """`n` draws for each spectrum, `[b * n, l]`; the condition is computed once a spectrum."""
        condition = self.condition(flux).repeat_interleave(n, dim=0)
        return self.flow(torch.randn(len(condition), self.n_label), c=[condition], rev=True)[0]


def _subnet(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(n_in, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, n_out)
    )
