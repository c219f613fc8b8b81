"""denoising-diffusion-pytorch (Phil Wang, https://github.com/lucidrains/denoising-diffusion-pytorch), as its Trainer uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contenders import stubs
from contenders.contender import Peer, Tuning

with stubs.in_place():
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA


class Lucidrains(Peer):
    """Its defaults: v-prediction, sigmoid schedule, Adam with betas (0.9, 0.99), clipping at 1, ema_pytorch, DDIM."""

    sampler = "DDIM"
    layout = torch.channels_last  # 87 pictures a second against 80 (28 x 28, two cores)

    @classmethod
    def tuned(cls) -> Tuning:
        return Tuning(learning_rate=4e-3, batch_size=32, ema=0.99, cosine=True)

    def assemble(self) -> None:
        channels, height, width = self.shape
        self.net: nn.Module = Unet(dim=32, dim_mults=(1, 2, 4), channels=channels)
        self.diffusion = GaussianDiffusion(
            self.net, image_size=(height, width), sampling_timesteps=20, auto_normalize=False
        ).to(self.device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), self.tuning.learning_rate, betas=(0.9, 0.99))
        # Its Trainer's average looks at every tenth step after the hundredth: made for longer runs than these.
        self.average = EMA(self.diffusion, beta=self.tuning.ema, update_after_step=10, update_every=1)

    def forward(self, x: Tensor) -> object:
        return self.net(x, torch.zeros(len(x), device=x.device))

    def loss(self, x: Tensor) -> Tensor:
        result: Tensor = self.diffusion(x)
        return result

    def update_average(self) -> None:
        self.average.update()

    def draw(self, n: int, steps: int) -> Tensor:
        model = self.average.ema_model.eval()
        model.sampling_timesteps, model.is_ddim_sampling = steps, True
        result: Tensor = model.sample(batch_size=n)
        return result
