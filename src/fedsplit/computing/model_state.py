"""A model's parameters, buffers and optimizer state as explicit values, and what a step does to them."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from fedsplit.computing.captured_steps import Recorder
from fedsplit.computing.computation import call
from fedsplit.computing.hooks import copy_hooks
from fedsplit.optim.optimizers import Optimizer
from fedsplit.randomness import seed_modules
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


def compute_format(tensor: Tensor) -> Tensor:
    """The memory format that models compute in: channels_last for images and their activations."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone(memory_format=torch.preserve_format)
    return compute_format(copy)


def _own_parameter(parameter: nn.Parameter) -> Tensor:
    """Copy a parameter that learns, with its hooks; return one that does not as the module's own memory."""
    if not parameter.requires_grad:
        return parameter.detach()
    copy = _copy(parameter).requires_grad_()
    copy_hooks(parameter, copy)
    return copy


def _zeros_like(weights: Weights) -> Weights:
    return {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in weights.items()}


def frozen_parameters(module: nn.Module) -> Weights:
    """Parameters of a module that do not learn (`requires_grad=False`), by all their names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter.detach() for name, parameter in named if not parameter.requires_grad}


def learning_parameters(module: nn.Module) -> Weights:
    """Parameters of a module that learn, by all their names; no copies."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter.detach() for name, parameter in named if parameter.requires_grad}


def travelling_tensors(module: nn.Module) -> Weights:
    """Tensors of a module that are sent, averaged and kept: parameters that learn, and buffers; no copies."""
    frozen = frozen_parameters(module)
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


class ModelState:
    """One party's copy of a model: a row of tensors, stepped by functions that are written once.

    Parameters with `requires_grad=False` stay in the module, whose memory all states share: they are neither
    sent nor loaded nor stepped.

    Args:
        module: the computation; many states share one. It must be in training mode.
        optimizer: moves the parameters in `descend`; None where they are never moved.
        recorder: captures its steps; None where they are not captured.
        keeps_anchor: True to keep parameters as they were loaded, beside what steps make of them.
        keeps: names of further tensors like the parameters, which are part of the state; zero at first.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        recorder: Recorder | None = None,
        keeps_anchor: bool = False,
        keeps: Collection[str] = (),
    ) -> None:
        self.module, self.recorder = module, recorder
        named = module.named_parameters(remove_duplicate=False)
        self.parameters = {name: _own_parameter(parameter) for name, parameter in named}
        self.trainable = {
            name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad
        }
        self.anchor = (
            {name: _copy(parameter) for name, parameter in self.trainable.items()} if keeps_anchor else {}
        )
        self.rule_tensors = {key: _zeros_like(self.trainable) for key in keeps}
        self.buffers = {
            name: _copy(module.get_buffer(name))
            for name in module.state_dict()
            if name not in self.parameters
        }
        self._learning_rate = optimizer.lr if optimizer else 0.0
        self._rate: Tensor | None = None
        """The learning rate as captured steps read it; torch's fused kernels take float32 only."""
        self._optimizer: torch.optim.Optimizer | None = None
        if optimizer and recorder:
            self._rate = torch.full((), optimizer.lr, dtype=torch.float32, device=self.device)
        if optimizer and self.trainable:
            trained = list(self.trainable.values())
            torch_optimizer = (
                optimizer.build(trained) if self._rate is None else optimizer.build(trained, self._rate)
            )
            self._optimizer = torch_optimizer

    @property
    def device(self) -> torch.device:
        """Device on which the model computes."""
        return next(iter(self.parameters.values())).device

    def frozen_buffers(self) -> dict[str, Tensor]:
        """Copies for a pass that must not move the running statistics."""
        return {name: buffer.clone() for name, buffer in self.buffers.items()}

    def forward(
        self,
        x: Tensor,
        *,
        seed: int | None,
        buffers: dict[str, Tensor] | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Outputs in training mode; moves the running statistics, or those in `buffers` if given.

        Args:
            seed: seed of what the module draws by itself (dropout); None where it draws nothing.
            seed: seed of what the module draws by itself (dropout); None where it draws nothing.
            buffers: buffers to use and move instead of the state's own.
            at: positions whose outputs are wanted, see `outputs_at`.
        """
        if seed is not None:
            seed_modules(seed, x.device)
        buffers = self.buffers if buffers is None else buffers
        return call(self.module, self.parameters, buffers, compute_format(x), at)

    def descend(self, gradients: Sequence[Tensor], learning_rate_factor: float | Tensor) -> None:
        """One optimizer step along `gradients`, given in the order of `trained`.

        Args:
            gradients: may be taken over.
            learning_rate_factor: factor that the schedule gives; in a 0-d tensor where the step is captured.
        """
        if not self.trainable:
            return
        if self._optimizer is None:
            raise AssertionError("this model is not trained here")
        for parameter, gradient in zip(self.trainable.values(), gradients, strict=True):
            # a fused optimizer on a CPU goes through memory as it comes, whatever the strides say
            same = gradient.stride() == parameter.stride()
            parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
        rate = self._learning_rate * learning_rate_factor
        if self._rate is None:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
        else:
            self._captured_step(self._optimizer, self._rate, rate)

    def _captured_step(
        self, optimizer: torch.optim.Optimizer, rate_tensor: Tensor, rate: float | Tensor
    ) -> None:
        """One that may be captured: its rate goes from tensor to tensor."""
        if isinstance(rate, Tensor):
            rate_tensor.copy_(rate)
        else:
            rate_tensor.fill_(rate)
        for group in optimizer.param_groups:
            # torch refuses to capture without it, and warns where it is set and nothing is captured
            group["capturable"] = rate_tensor.is_cuda and torch.cuda.is_current_stream_capturing()
        optimizer.step()
        for parameter in self.trainable.values():
            parameter.grad = None  # a captured step's gradient would hold memory that all graphs share

    @torch.no_grad()
    def move_buffers(self, buffers: dict[str, Tensor]) -> None:
        """Take over running statistics of a forward pass."""
        for name, buffer in buffers.items():
            self.buffers[name].copy_(buffer)

    def for_each(self, function: Callable[..., Tensor], *inputs: object) -> Tensor:
        """Call `function`; states of many clients call it for each."""
        return function(*inputs)

    def weights(self) -> Weights:
        """Copies of parameters that learn and of buffers, contiguous: a message."""
        named = {**self.trainable, **self.buffers}
        return {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in named.items()}

    def load(self, weights: Weights) -> None:
        """Take over parameters that learn and buffers; the optimizer's state stays."""
        tensors = {**self.trainable, **self.buffers}
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(weights[name])
            for name, anchor in self.anchor.items():
                anchor.copy_(weights[name])

    def state(self) -> State:
        """Everything: weights, buffers, the optimizer's state, and what is kept beside these, if anything."""
        slots: State = {}
        if self._optimizer is not None:
            for name, parameter in self.trainable.items():
                slots[name] = dict(self._optimizer.state.get(parameter, {}))
        rule_state: State = (
            {"kept": {key: dict(tensors) for key, tensors in self.rule_tensors.items()}}
            if self.rule_tensors
            else {}
        )
        return {"weights": {**self.trainable, **self.buffers}, "optimizer": slots, **rule_state}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave; the optimizer's state is then in other memory than before."""
        self.load(state["weights"])
        for key, tensors in self.rule_tensors.items():
            for name, tensor in tensors.items():
                tensor.copy_(state["kept"][key][name])
        if self._optimizer is None:
            return
        self._optimizer.state.clear()
        for name, parameter in self.trainable.items():
            slot = {key: self._slot(parameter, value) for key, value in state["optimizer"][name].items()}
            if slot:
                self._optimizer.state[parameter] = slot

    def _slot(self, parameter: Tensor, value: object) -> object:
        """A slot of an optimizer in the memory format of its parameter, so that the same kernels run."""
        if not isinstance(value, Tensor):
            return value
        if value.shape == parameter.shape:
            return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        # counts of steps are kept on the device where steps are captured
        return value.to(parameter.device if self._rate is not None else value.device, copy=True)
