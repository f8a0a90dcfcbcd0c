"""JEM: a classifier's energies and probabilities, its loss and buffer, and its chains on energies of known samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from baselines.energy.jem import JEM, JEMConfig, energy_of
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import to_float
from genbench.noise import NoiseSource

CLASSES = ("a", "b", "c")
SPEC = ImageSpec(1, 4, 4, 17, CLASSES)
PAIR = ImageSpec(1, 1, 2, 256, CLASSES)


class Context:
    """A minimal `TrainContext`: no schedule, no clipping; keeps the loss."""

    def __init__(self, model: JEM, seed: int = 0) -> None:
        self.step, self.progress, self.device = 0, 0.0, torch.device("cpu")
        self.rng = torch.Generator().manual_seed(seed)
        self.optimizers = model.optimizers()
        self.loss = torch.empty(0)

    def backward(self, loss: Tensor) -> None:
        self.loss = loss.detach()
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()


def model_of(spec: ImageSpec = SPEC, **changes: object) -> JEM:
    torch.manual_seed(0)
    settings = {
        "network": "mlp",
        "widths": (8,),
        "buffer_size": 30,
        "langevin_steps": 3,
        "sampling_steps": 4,
        **changes,
    }
    return JEM(JEMConfig(**settings), spec)


def batch_of(size: int, labels: bool = True) -> Batch:
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 17, (size, *SPEC.shape), generator=rng) * 255 // 16
    found = torch.randint(3, (size,), generator=rng) if labels else None
    return Batch(images.to(torch.uint8), torch.arange(size), labels=found)


def test_the_gradient_of_the_energy_is_the_expected_gradient_of_the_logits() -> None:
    """-grad logsumexp_y f(x)[y] = -sum_y p(y | x) grad f(x)[y], and -grad f(x)[y] for a class."""
    model = model_of()
    x = torch.rand(5, *SPEC.shape, requires_grad=True)
    logits = model.classifier(x)
    of_class = [torch.autograd.grad(logits[:, y].sum(), x, retain_graph=True)[0] for y in range(3)]
    (found,) = torch.autograd.grad(energy_of(logits, None).sum(), x, retain_graph=True)
    p = logits.softmax(1).detach()
    torch.testing.assert_close(found, -sum(p[:, y, None, None, None] * of_class[y] for y in range(3)))
    labels = torch.tensor([2, 0, 1, 2, 0])
    (found,) = torch.autograd.grad(energy_of(logits, labels).sum(), x)
    torch.testing.assert_close(found, -torch.stack([of_class[int(y)][i] for i, y in enumerate(labels)]))


def test_joint_energies_sum_to_the_marginal_one_and_divide_to_class_probabilities() -> None:
    model, batch = model_of(), batch_of(6)
    with torch.no_grad():
        logits = model.classifier(to_float(batch.images, 17)).double()
        marginal = energy_of(logits, None).double()
        joint = torch.stack([energy_of(logits, torch.full((6,), y)) for y in range(3)], 1).double()
        log_p = model.classify(batch.images).double()
    torch.testing.assert_close((-joint).exp().sum(1), (-marginal).exp(), rtol=1e-5, atol=0)
    torch.testing.assert_close(marginal[:, None] - joint, log_p, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(6, dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_shift_of_all_logits_moves_the_energy_and_not_the_class_probabilities() -> None:
    model, batch = model_of(), batch_of(6)
    x = to_float(batch.images, 17)
    with torch.no_grad():
        before, energy = model.classify(batch.images), energy_of(model.classifier(x), None)
        model.classifier[-1].bias += 2.5
        after, shifted = model.classify(batch.images), energy_of(model.classifier(x), None)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    torch.testing.assert_close(shifted, energy - 2.5, rtol=0, atol=1e-5)


class Wells(nn.Module):
    """f(x)[y] = -(x - m_y)^T A (x - m_y) / 2 on two pixels: p(x | y) is normal."""

    def __init__(self, means: list[list[float]], A: list[list[float]]) -> None:
        super().__init__()
        self.means, self.A = torch.tensor(means), torch.tensor(A)

    def forward(self, x: Tensor) -> Tensor:
        d = x.flatten(1)[:, None] - self.means
        return -0.5 * torch.einsum("bym,mn,byn->by", d, self.A, d)


MEANS = [[-0.4, 0.1], [0.0, 0.3], [0.4, -0.2]]


def chains(model: JEM, count: int, **condition: Tensor) -> Tensor:
    """(B, 2) values in [-1, 1] of samples."""
    request = SampleRequest(NoiseSource(0, torch.arange(count)), SamplerOptions(), Condition(**condition))
    return to_float(model.sample(request), 256).flatten(1)


def test_chains_of_a_class_have_the_known_stationary_law_of_its_quadratic_energy() -> None:
    """Mean m_y and variance noise^2 / (1 - (1 - step / v)^2) per pixel for E = (x - m_y)^2 / (2 v)."""
    step, noise, v, count = 0.3, 0.05, 1.0, 9000
    model = model_of(PAIR, step_size=step, noise_scale=noise, sampling_steps=60)
    model.classifier = Wells(MEANS, [[1 / v, 0.0], [0.0, 1 / v]])
    labels = torch.arange(count) % 3
    x = chains(model, count, labels=labels)
    variance = noise**2 / (1 - (1 - step / v) ** 2)
    rounding = (2 / 255) ** 2 / 12
    for y in range(3):
        found = x[labels == y]
        assert (found.mean(0) - torch.tensor(MEANS[y])).abs().max() < 5 * math.sqrt(variance / 3000)
        assert found.var(0).tolist() == pytest.approx([variance + rounding] * 2, rel=0.15)


def test_chains_without_a_class_find_all_of_them() -> None:
    """On three far wells the unconditional chain ends in each, and near no other point."""
    model = model_of(PAIR, step_size=0.005, noise_scale=0.01, sampling_steps=60)
    model.classifier = Wells([[-0.7, -0.7], [0.0, 0.7], [0.7, -0.7]], [[100.0, 0.0], [0.0, 100.0]])
    distance = torch.cdist(chains(model, 600), model.classifier.means)
    assert (distance.min(1).values < 0.15).all()
    assert distance.argmin(1).bincount(minlength=3).min() > 100


def test_inpainting_follows_the_conditional_of_a_correlated_energy() -> None:
    """Given x_0, the other pixel is normal about m_1 - A_10 / A_11 (x_0 - m_0); given pixels are the source's."""
    count, step, noise = 4000, 0.3, 0.05
    model = model_of(PAIR, step_size=step, noise_scale=noise, sampling_steps=60)
    model.classifier = Wells(MEANS, [[1.0, 0.6], [0.6, 1.0]])
    source = torch.tensor([[[[40, 200]]]], dtype=torch.uint8).expand(count, -1, -1, -1)
    mask = torch.tensor([[[[True, False]]]]).expand(count, -1, -1, -1)
    x = chains(model, count, labels=torch.ones(count, dtype=torch.int64), mask=mask, source=source)
    given = 2 * 40 / 255 - 1
    torch.testing.assert_close(x[:, 0], torch.full((count,), given))
    expected = 0.3 - 0.6 * (given - 0.0)
    assert float(x[:, 1].mean()) == pytest.approx(expected, abs=0.01)
    assert float(x[:, 1].std()) == pytest.approx(noise / math.sqrt(1 - (1 - step) ** 2), rel=0.05)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_loss_is_cross_entropy_and_the_contrast_of_energies(conditional: bool) -> None:
    changes = {"conditional_chains": conditional, "density_weight": 0.7, "energy_l2": 0.2, "data_noise": 0.0}
    model, batch = model_of(**changes), batch_of(8)
    negatives: list[tuple[Tensor, Tensor | None]] = []
    inner = model._negatives
    model._negatives = lambda count, ctx: negatives.append(inner(count, ctx)) or negatives[-1]  # type: ignore[method-assign]
    context = Context(model)
    frozen = {k: v.clone() for k, v in model.state_dict().items()}
    figures = model.update(batch, context)
    generated, classes = negatives[0]
    assert (classes is not None) is conditional
    model.load_state_dict(frozen)
    with torch.no_grad():
        real, fake = model.classifier(to_float(batch.images, 17)), model.classifier(generated)
    down = -real.logsumexp(1)
    up = -fake.logsumexp(1) if classes is None else -fake[torch.arange(8), classes]
    cross_entropy = -real.log_softmax(1)[torch.arange(8), batch.labels].mean()
    expected = cross_entropy + 0.7 * (down.mean() - up.mean()) + 0.2 * (down.square().mean() + up.square().mean())
    assert float(context.loss) == pytest.approx(float(expected), rel=1e-5)
    right = (real.argmax(1) == batch.labels).float().mean()
    assert float(figures["accuracy"]) == pytest.approx(float(right))


def test_training_lowers_the_energy_of_data_below_that_of_noise_and_classifies() -> None:
    """Two kinds of constant images: after training both are more probable than noise, and told apart."""
    model = model_of(learning_rate=1e-2, step_size=0.1)
    labels = torch.arange(16) % 2
    images = (labels * 160 + 40).to(torch.uint8)[:, None, None, None].expand(-1, *SPEC.shape)
    images = ((images.int() + 8) // 16 * 255 // 16).clamp(max=255).to(torch.uint8)
    context = Context(model)
    for _ in range(60):
        model.update(Batch(images, torch.arange(16), labels=labels), context)
    with torch.no_grad():
        data = energy_of(model.classifier(to_float(images, 17)), None)
        noise = energy_of(model.classifier(2 * torch.rand(200, *SPEC.shape) - 1), None)
    assert float(data.max()) < float(noise.mean())
    figure = model.validate(Batch(images, torch.arange(16), labels=labels), NoiseSource(0, torch.arange(16)))
    assert float(figure.sum()) == 0.0
    wrong = model.validate(Batch(images, torch.arange(16), labels=1 - labels), NoiseSource(0, torch.arange(16)))
    assert float(wrong.mean()) == 1.0


def test_the_buffer_keeps_the_chains_each_in_its_class_and_is_state() -> None:
    model = model_of(conditional_chains=True, langevin_steps=1)
    model.classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        model.classifier[1].bias.zero_()
        model.classifier[1].weight.copy_(torch.tensor([[-9.0], [0.0], [9.0]]).expand(3, 16))
    model.buffer.fill_(128)
    before = model.buffer.clone()
    chains, classes = model._negatives(8, Context(model))
    changed = (model.buffer != before).flatten(1).any(1).nonzero().flatten()
    assert classes is not None
    assert sorted((changed % 3).tolist()) == sorted(classes.tolist())
    assert (chains[classes == 0].flatten(1).mean(1) < -0.9).all()
    assert (chains[classes == 2].flatten(1).mean(1) > 0.9).all()
    restored = model_of(conditional_chains=True)
    restored.classifier = model.classifier
    restored.load_state_dict(model.state_dict())
    assert torch.equal(restored.buffer, model.buffer)


@pytest.mark.parametrize(("share", "kept"), [(1e-9, True), (1.0, False)])
def test_chains_start_from_the_buffer_or_from_noise(share: float, kept: bool) -> None:
    model = model_of(fresh_share=share, langevin_steps=1, step_size=1e-9, noise_scale=0.0)
    model.buffer.fill_(51)
    x, _ = model._negatives(16, Context(model))
    assert bool(torch.allclose(x, torch.full_like(x, -0.6), atol=1e-6)) is kept
    assert kept or float(x.std()) == pytest.approx(1 / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_residual_network_of_any_size(channels: int, side: int) -> None:
    spec = ImageSpec(channels, side, side, class_names=CLASSES)
    model = model_of(spec, network="wide_resnet", depth=10, widening=1)
    x = torch.rand(4, *spec.shape)
    logits = model.classifier(x)
    assert logits.shape == (4, 3)
    torch.testing.assert_close(model.classifier(x[2:]), logits[2:])


def test_bad_settings_and_images_without_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="Use ebm"):
        model_of(ImageSpec(1, 4, 4, 17))
    with pytest.raises(UsageError, match="6 n \\+ 4"):
        model_of(network="wide_resnet", depth=12)
    with pytest.raises(UsageError, match="Give a multiple"):
        model_of(buffer_size=31)
    model = model_of()
    with pytest.raises(UsageError, match="no labels"):
        model.update(batch_of(4, labels=False), Context(model))
    with pytest.raises(UsageError, match="no labels"):
        model.validate(batch_of(4, labels=False), NoiseSource(0, torch.arange(4)))
    with pytest.raises(UsageError, match="raise buffer_size"):
        model.update(batch_of(31), Context(model))
