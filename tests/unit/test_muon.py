import pytest
import torch

from wuerstchen.muon import Muon, orthogonal

SHAPES = [(8, 8), (8, 32), (32, 8), (8, 32), (5, 12)]  # square, wide, tall, one shape twice


def parameters():
    random = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]


def test_it_steps_as_torchs_muon_does():
    ours, theirs = parameters(), parameters()
    mine = Muon(ours, lr=0.02, weight_decay=0.1)
    peer = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    random = torch.Generator().manual_seed(1)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=random)
            b.grad = a.grad.clone()
        mine.step()
        peer.step()
    for a, b, start in zip(ours, theirs, parameters(), strict=True):
        moved = (b - start).abs().max()
        assert moved > 0.01
        # bfloat16 has three digits; batched products may add in another order
        assert (a - b).abs().max() < 0.05 * moved


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    def stepped(optimiser, params, seeds):
        for seed in seeds:
            for p in params:
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
            optimiser.step()

    whole, halves = parameters(), parameters()
    stepped(Muon(whole, lr=0.02, weight_decay=0.1), whole, range(4))
    first = Muon(halves, lr=0.02, weight_decay=0.1)
    stepped(first, halves, range(2))
    second = Muon(halves, lr=0.5, weight_decay=0.9)
    second.load_state_dict(first.state_dict())
    stepped(second, halves, range(2, 4))
    for a, b in zip(whole, halves, strict=True):
        assert torch.equal(a, b)


def test_a_parameter_without_gradient_stays_as_it_is():
    first, second = parameters()[:2]
    first.grad = torch.ones_like(first)
    before = second.detach().clone()
    Muon([first, second], lr=0.02, weight_decay=0.1).step()
    assert torch.equal(second, before)


def test_singular_values_come_out_near_one_and_vectors_as_they_were():
    random = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 16, 40, generator=random)
    result = orthogonal(matrices)
    values = torch.linalg.svdvals(result)
    assert 0.5 < values.min() and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    core = u.mT @ result @ v.mT
    assert (core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))).abs().max() < 0.05


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"Muon is for matrices, found a parameter of shape \(3, 3, 3\)"):
        Muon([torch.nn.Parameter(torch.zeros(3, 3, 3))], lr=0.02, weight_decay=0.0)
