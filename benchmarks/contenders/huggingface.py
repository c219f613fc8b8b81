"""diffusers (Hugging Face, https://github.com/huggingface/diffusers), as its example of unconditional training uses it."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from contenders.contender import Peer, Tuning


class Diffusers(Peer):
    """eps-prediction under the linear schedule, AdamW, clipping at 1, its EMAModel, DPM-Solver++(2M)."""

    sampler = "DPM-Solver++(2M)"
    layout = torch.contiguous_format
    # 124 pictures a second against 99 with channels last (28 x 28, two cores): its GroupNorm is slow there

    @classmethod
    def tuned(cls) -> Tuning:
        return Tuning(learning_rate=4e-3, batch_size=32, ema=0.99, cosine=True)

    def assemble(self) -> None:
        channels, height, width = self.shape
        self.net: nn.Module = UNet2DModel(
            sample_size=(height, width),
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(32, 64, 96),
            layers_per_block=2,
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            attention_head_dim=32,
            norm_num_groups=8,
        ).to(self.device)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), self.tuning.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.average = EMAModel(
            self.net.parameters(), decay=self.tuning.ema, use_ema_warmup=True, inv_gamma=1.0, power=0.75, foreach=True
        )

    def forward(self, x: Tensor) -> object:
        return self.net(x, torch.zeros(len(x), device=x.device)).sample

    def loss(self, x: Tensor) -> Tensor:
        eps = torch.randn_like(x)
        t = torch.randint(0, 1000, (len(x),), device=x.device)
        predicted = self.net(self.scheduler.add_noise(x, eps, t), t).sample
        return F.mse_loss(predicted.float(), eps)

    def update_average(self) -> None:
        self.average.step(self.net.parameters())

    def draw(self, n: int, steps: int) -> Tensor:
        net = copy.deepcopy(self.net).eval()
        self.average.copy_to(net.parameters())
        scheduler = DPMSolverMultistepScheduler.from_config(self.scheduler.config, algorithm_type="dpmsolver++")
        scheduler.set_timesteps(steps)
        x = torch.randn(n, *self.shape, device=self.device)
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t).sample.float(), t, x).prev_sample
        return x
