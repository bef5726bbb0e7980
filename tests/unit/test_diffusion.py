import math

import numpy as np
import pytest
import torch

from wuerstchen.diffusion import (
    CosineSchedule,
    ddpm_step,
    guide,
    noise_loss,
    p2_code,
    p2_paper,
    predicted_noise_b,
    predicted_noise_c,
    sample,
    timesteps_released,
    timesteps_uniform,
    velocity,
)

SCHEDULE = CosineSchedule()


def test_alpha_bar_is_that_of_diffusers():
    from diffusers import DDPMWuerstchenScheduler

    t = torch.linspace(0, 1, 101)
    theirs = DDPMWuerstchenScheduler()._alpha_cumprod(t, "cpu")
    assert torch.allclose(SCHEDULE.alpha_bar(t), theirs, atol=1e-6)
    assert SCHEDULE.alpha_bar(torch.tensor([1.0])).item() == pytest.approx(1e-4)
    assert SCHEDULE.alpha_bar(torch.tensor([0.0])).item() == pytest.approx(0.9999)


def test_ddpm_step_is_that_of_diffusers():
    from diffusers import DDPMWuerstchenScheduler

    scheduler = DDPMWuerstchenScheduler()
    scheduler.set_timesteps(10)
    torch.manual_seed(0)
    x, eps = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    for t, t_previous in ((1.0, 0.9), (0.5, 0.4), (0.1, 0.0)):
        g = torch.Generator().manual_seed(1)
        theirs = scheduler.step(eps, torch.full((2,), t), x, generator=g).prev_sample
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        alpha_bars = [SCHEDULE.alpha_bar(torch.tensor(v)).item() for v in (t, t_previous)]
        ours = ddpm_step(x, eps, *alpha_bars, noise if t_previous else None)
        assert torch.allclose(ours, theirs, atol=1e-4 * theirs.abs().max().item()), t


def test_forward_diffusion_keeps_unit_variance():
    torch.manual_seed(0)
    x, noise, t = torch.randn(4, 10_000), torch.randn(4, 10_000), torch.tensor([0.0, 0.3, 0.6, 1.0])
    assert torch.allclose(SCHEDULE.add_noise(x, t, noise).var(1), torch.ones(4), atol=0.05)


def test_objectives_invert():
    """Where B leaves the signal alone, A = x - eps * |1 - B| gives back eps."""
    torch.manual_seed(0)
    x, eps = torch.randn(2, 3), torch.randn(2, 3)
    b = torch.rand(2, 3) * 0.5
    assert torch.allclose(predicted_noise_c(x, x - eps * (1 - b + 1e-5), b), eps, atol=1e-5)
    assert torch.allclose(predicted_noise_b(x, x - eps * (b + 0.1), b + 0.1), eps, atol=1e-5)


def test_p2_formulas_differ_as_the_notes_say():
    alpha_bar = torch.tensor([1e-4, 0.5, 0.9999])
    assert torch.allclose(p2_code(alpha_bar), 1 - alpha_bar, atol=1e-6)
    assert p2_paper(alpha_bar)[1].item() == pytest.approx(1 / 3)
    assert (p2_code(alpha_bar) / p2_paper(alpha_bar))[2].item() == pytest.approx(2, rel=1e-3)


def test_velocity_weight_is_that_of_a_velocity_loss():
    """An error e of the noise is one of e / sqrt(alpha-bar) in v = sqrt(alpha-bar) noise - sqrt(1 - alpha-bar) x."""
    alpha_bar = torch.tensor([0.3])
    x, eps, e = torch.randn(2), torch.randn(2), 0.1
    noised = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * eps
    guess = (noised - (1 - alpha_bar).sqrt() * (eps + e)) / alpha_bar.sqrt()
    v, guessed = (alpha_bar.sqrt() * n - (1 - alpha_bar).sqrt() * y for n, y in ((eps, x), (eps + e, guess)))
    assert torch.allclose((v - guessed).square(), velocity(alpha_bar) * e**2, atol=1e-5)
    assert velocity(torch.tensor([1e-4])).item() == pytest.approx(20)


def test_timestep_sampling():
    u = torch.linspace(0, 0.9999, 10_000)
    uniform, released = timesteps_uniform(u), timesteps_released(u)
    assert uniform.min() > 0 and uniform.max() == 1
    assert (released == 1).float().mean().item() == pytest.approx(0.075, abs=0.002)
    assert released.min().item() == pytest.approx(0.001, abs=2e-4)


def test_loss_is_the_weighted_mean():
    predicted, noise = torch.zeros(2, 3), torch.tensor([[1.0, 1, 1], [2, 2, 2]])
    assert noise_loss(predicted, noise, torch.tensor([1.0, 0.5])).item() == pytest.approx((1 + 2) / 2)


def test_guidance_scale_one_is_the_conditional_prediction():
    c, u = torch.randn(3), torch.randn(3)
    assert torch.allclose(guide(c, u, 1.0), c)
    assert torch.allclose(guide(c, u, 4.0), u + 4 * (c - u), atol=1e-6)


def test_sampling_with_the_exact_noise_of_a_gaussian_gives_that_gaussian():
    """For data N(3, 0.5^2) the best noise prediction is known; DDPM with it must draw from the data's distribution."""
    mean, std, n = 3.0, 0.5, 20_000
    random = torch.Generator().manual_seed(0)

    def predict(x, t):
        alpha_bar = SCHEDULE.alpha_bar(t)[:, None]
        variance = alpha_bar * std**2 + 1 - alpha_bar
        return (x - alpha_bar.sqrt() * mean) * (1 - alpha_bar).sqrt() / variance

    drawn = sample(predict, (n, 1), 200, lambda shape: torch.randn(tuple(shape), generator=random), SCHEDULE)
    assert drawn.mean().item() == pytest.approx(mean, abs=0.03)
    assert drawn.std().item() == pytest.approx(std, rel=0.05)


def test_last_step_adds_no_noise_and_noise_is_asked_for_once_a_step():
    calls = []

    def randn(shape):
        calls.append(tuple(shape))
        return torch.zeros(tuple(shape))

    sample(lambda x, t: x, (2, 3), 5, randn, SCHEDULE)
    assert calls == [(2, 3)] * 5
    assert np.isclose(math.sqrt(1 - 0.9999), 0.01)
