"""PyTorch's autograd and optimisers, float64, as an oracle from outside for whole epochs of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import (
    OPTIMIZERS,
    PENALTIES,
    default_rate,
    finetune_plan,
    pretrain_plan,
    random_data,
    random_state,
    random_targets,
    stack,
    with_head,
)

from gesda.engine._reference_noise import corrupt, dropout_scale
from gesda.engine.reference import ReferenceEngine

torch = pytest.importorskip("torch", reason="PyTorch, the outside oracle, is not installed")
functional = torch.nn.functional

ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda a: a,
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensors(state):
    return {name: torch.tensor(array, dtype=torch.float64, requires_grad=True) for name, array in state.items()}


def torch_optimizer(spec, params, rate):
    if spec.kind == "adam":
        return torch.optim.Adam(params, lr=rate, betas=(spec.beta_1, spec.beta_2), eps=spec.epsilon)
    momentum = spec.momentum if spec.kind == "momentum" else 0.0
    return torch.optim.SGD(params, lr=rate, momentum=momentum, nesterov=spec.nesterov)


def layer_loss(layer, params, k, x, x_corrupted, corrupted):
    """Objective of one layer and the encoding of its clean input, by torch's own functions."""
    w, b, c = (params[f"layers.{k}.{name}"] for name in "Wbc")
    decoder = w.T if layer.tied else params[f"layers.{k}.V"]
    encode = ACTIVATIONS[layer.activation]
    a = x_corrupted @ w + b
    h = encode(a)
    out = h @ decoder + c
    if layer.loss == "cross_entropy":
        terms = functional.binary_cross_entropy_with_logits(out, x, reduction="none")
    else:
        terms = 0.5 * (ACTIVATIONS[layer.output_activation](out) - x) ** 2
    weight = torch.tensor(np.where(corrupted, *layer.emphasis))
    loss = (weight * terms).sum() / len(x)
    if layer.sparsity:
        rho, mean = torch.tensor(layer.sparsity_target, dtype=torch.float64), h.mean(0)
        loss = (
            loss
            + layer.sparsity
            * (
                torch.distributions.kl_divergence(
                    torch.distributions.Bernoulli(rho), torch.distributions.Bernoulli(mean)
                )
            ).sum()
        )
    if layer.contractive:
        # The Jacobian itself, row by row, by autograd through the encoder.
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: encode(row @ w + b)))(x_corrupted)
        loss = loss + layer.contractive * (jacobian**2).sum() / len(x)
    loss = loss + 0.5 * layer.l2 * (w**2).sum()
    if not layer.tied:
        loss = loss + 0.5 * layer.l2 * (decoder**2).sum()
    return loss, encode(x @ w + b).detach(), h.detach()


def torch_pretraining(spec, data, state, plans):
    """CrossPre in plain loops: each layer on the encodings by the weights of the step's start."""
    params = tensors(state)
    optimizers = [
        torch_optimizer(
            spec.optimizer, [p for name, p in params.items() if name.startswith(f"layers.{k}.")], default_rate(spec)
        )
        for k in range(len(spec.layers))
    ]
    for plan in plans:
        for k, optimizer in enumerate(optimizers):
            optimizer.param_groups[0]["lr"] = plan.learning_rates[k]
        for start in range(0, len(plan.order), plan.batch_size):
            ids = plan.order[start : start + plan.batch_size]
            x = torch.tensor(data[ids], dtype=torch.float64)
            losses = []
            for k, layer in enumerate(spec.layers):
                noisy, corrupted = corrupt(layer, spec.seed, k, plan.epoch, ids, x.numpy())
                loss, clean, hidden = layer_loss(layer, params, k, x, torch.tensor(noisy), corrupted)
                losses.append(loss)
                x = hidden if plan.handoff == "noisy" else clean
            for loss, optimizer in zip(losses, optimizers, strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return params


def assert_equal_parameters(engine, params):
    state = engine.get_state()
    for name, p in params.items():
        np.testing.assert_allclose(state[name], p.detach().numpy(), rtol=1e-9, atol=1e-11, err_msg=name)


def check_pretraining(spec, rng, handoff="clean"):
    data, state = random_data(23, spec.layers[0].n_visible, rng), random_state(spec, rng)
    plans = [pretrain_plan(spec, 23, 9, epoch=epoch, handoff=handoff, rng=rng) for epoch in range(2)]
    engine = ReferenceEngine(spec)
    engine.set_state(state)
    for plan in plans:
        engine.pretrain_epoch(data, plan)
    assert_equal_parameters(engine, torch_pretraining(spec, data, state, plans))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("handoff", ["clean", "noisy"])
def test_pretraining_by_optimizer_tying_and_loss(rng, optimizer, tied, loss, handoff):
    check_pretraining(stack((12, 9, 7), optimizer, tied=tied, loss=loss), rng, handoff)


@pytest.mark.parametrize("penalty", ["sparse", "contractive", "l2", "all"])
@pytest.mark.parametrize("tied", [True, False])
def test_pretraining_with_penalties(rng, penalty, tied):
    check_pretraining(stack((12, 9, 7), "momentum", tied=tied, noise="gaussian", **PENALTIES[penalty]), rng)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_pretraining_by_activations_of_encoder_and_decoder(rng, activation, output):
    options = {"activation": activation, "output_activation": output, "loss": "squared_error", "contractive": 0.05}
    check_pretraining(stack((12, 9, 7), "sgd", noise="swap", **options), rng)


@pytest.mark.parametrize("noise", ["masking", "salt_and_pepper", "swap"])
def test_pretraining_with_emphasis(rng, noise):
    check_pretraining(stack((12, 9, 7), "sgd", noise=noise, emphasis=(2.0, 0.3)), rng)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["softmax", "linear"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_finetuning(rng, optimizer, kind, activation):
    spec = stack((12, 9, 7), activation=activation, loss="squared_error")
    spec = with_head(spec, kind, 4, optimizer=OPTIMIZERS[optimizer], l2=0.03, dropout=(0.1, 0.3, 0.5))
    assert spec.head is not None
    data, state = random_data(23, 12, rng), random_state(spec, rng)
    targets, weight = random_targets(spec, 23, rng), rng.uniform(0, 2, size=23).astype(np.float32)
    plans = [finetune_plan(23, 9, rng, epoch=epoch, rate=0.02) for epoch in range(2)]
    engine = ReferenceEngine(spec)
    engine.set_state(state)
    params = tensors(state)
    moving = [p for name, p in params.items() if name.endswith((".W", ".b"))]
    torch_steps = torch_optimizer(spec.head.optimizer, moving, 0.02)
    for plan in plans:
        stats, total = engine.finetune_epoch(data, targets, plan, weight), 0.0
        for start in range(0, 23, 9):
            ids = plan.order[start : start + 9]
            h = torch.tensor(data[ids], dtype=torch.float64)
            for k in range(3):
                h = h * torch.tensor(dropout_scale(spec.head.dropout[k], spec.seed, k, plan.epoch, ids, h.shape[1]))
                if k < 2:
                    h = ACTIVATIONS[activation](h @ params[f"layers.{k}.W"] + params[f"layers.{k}.b"])
            out = h @ params["head.W"] + params["head.b"]
            wanted = torch.tensor(targets[ids])
            if kind == "softmax":
                losses = functional.cross_entropy(out, wanted.long(), reduction="none")
            else:
                losses = 0.5 * ((out - wanted) ** 2).sum(1)
            loss = (torch.tensor(weight[ids]).double() * losses).mean()
            total += loss.item() * len(ids)
            loss = loss + 0.5 * spec.head.l2 * sum((p**2).sum() for n, p in params.items() if n.endswith("W"))
            torch_steps.zero_grad()
            loss.backward()
            torch_steps.step()
        np.testing.assert_allclose(stats.loss, total / 23, rtol=1e-10)
    assert_equal_parameters(engine, params)
