# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What every public model class must do to feel like a class of transformers; each class inherits these tests."""

import copy
import inspect
import json

import pytest
import torch
from transformers import AutoConfig, PreTrainedConfig


class CommonModelTests:
    """Subclasses name the class, a tiny configuration, a ragged batch and the output to compare."""

    model_class: type
    auto_class: type
    main_output: str
    unused_parameters: tuple[str, ...] = ()  # without gradient by design

    def make_config(self) -> PreTrainedConfig:
        raise NotImplementedError

    def make_inputs(self, config) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def make_model(self, config=None):
        torch.manual_seed(3)
        return self.model_class(config or self.make_config()).eval()

    def run(self, model, **overrides):
        torch.manual_seed(5)  # masks are drawn in forward
        return model(**{**self.make_inputs(model.config), **overrides})

    def main(self, outputs) -> torch.Tensor:
        return getattr(outputs, self.main_output) if self.main_output else outputs

    # configuration

    def test_config_works_without_arguments_and_survives_json(self, tmp_path):
        config = type(self.make_config())()
        assert json.loads(config.to_json_string(use_diff=False))["model_type"] == config.model_type
        tiny = self.make_config()
        tiny.save_pretrained(tmp_path / "nested" / "folder")
        loaded = type(tiny).from_pretrained(tmp_path / "nested" / "folder")
        assert loaded.to_dict() == tiny.to_dict()
        assert type(tiny)(**{k: v for k, v in tiny.to_dict().items() if k != "model_type"}).to_dict() == tiny.to_dict()

    def test_config_holds_no_generation_numbers(self):
        written = json.loads(self.make_config().to_json_string())
        assert not {"max_length", "num_beams", "temperature", "top_k"} & set(written)

    def test_num_labels_names_the_labels(self):
        config = type(self.make_config())(num_labels=5)
        assert len(config.id2label) == len(config.label2id) == 5

    def test_sizes_have_the_usual_names(self):
        config = self.make_config()
        config = getattr(config, "audio_config", config)
        assert config.hidden_size > 0
        assert config.num_hidden_layers > 0
        assert config.num_attention_heads > 0

    # forward

    def test_first_argument_is_the_main_input_and_the_last_takes_anything(self):
        parameters = list(inspect.signature(self.model_class.forward).parameters.values())
        assert parameters[1].name == self.model_class.main_input_name

    def test_return_dict_false_gives_a_tuple_with_the_same_values(self):
        model = self.make_model()
        with torch.no_grad():
            named, plain = self.run(model), self.run(model, return_dict=False)
        assert isinstance(plain, tuple)
        assert len(plain) == len(named.to_tuple())
        assert any(isinstance(v, torch.Tensor) and torch.equal(v, self.main(named)) for v in plain)

    def test_eager_attention_equals_sdpa(self):
        model = self.make_model()
        with torch.no_grad():
            fast = self.main(self.run(model))
            model.set_attn_implementation("eager")
            slow = self.main(self.run(model))
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)

    def test_bf16_weights_give_finite_bf16(self):
        model = self.make_model().to(torch.bfloat16)
        inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in self.make_inputs(model.config).items()}
        with torch.no_grad():
            output = self.main(self.run(model, **inputs))
        assert torch.isfinite(output).all()
        assert output.dtype == torch.bfloat16 or output.ndim == 0  # losses are float32

    def test_dynamo_traces_forward(self):
        model = self.make_model()
        compiled = torch.compile(model, backend="eager")
        with torch.no_grad():
            torch.testing.assert_close(self.main(self.run(compiled)), self.main(self.run(model)), rtol=1e-5, atol=1e-5)

    # weights

    def test_every_weight_and_buffer_is_initialised(self):
        with torch.device("meta"):
            model = self.model_class(self.make_config())
        model.to_empty(device="cpu")
        for module in model.modules():
            module.__dict__.pop("_is_hf_initialized", None)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for tensor in tensors.values():
                tensor.fill_(float("nan") if tensor.is_floating_point() else -7)
        model.initialize_weights()
        unset = [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
        assert not unset

    def test_no_tensor_hides_outside_parameters_and_buffers(self):
        for module in self.make_model().modules():
            hidden = [name for name, value in vars(module).items() if isinstance(value, torch.Tensor)]
            assert not hidden, f"{type(module).__name__} keeps {hidden}"

    def test_save_and_load_are_equal_to_the_bit(self, tmp_path):
        model = self.make_model()
        model.save_pretrained(tmp_path, max_shard_size="20kB")
        assert (tmp_path / "model.safetensors.index.json").exists(), "the shards of this test must be several"
        loaded, info = self.model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        for (name, a), (_, b) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
            assert torch.equal(a, b), name
        for tensor in loaded.parameters():
            tensor.data = tensor.data.clone()  # loaded memory is not aligned, and matrix products round by alignment
        with torch.no_grad():
            assert torch.equal(self.main(self.run(model)), self.main(self.run(loaded.eval())))

    def test_auto_class_returns_this_class(self, tmp_path):
        model = self.make_model()
        model.save_pretrained(tmp_path)
        assert type(self.auto_class.from_pretrained(tmp_path)) is self.model_class
        assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)
        assert type(self.auto_class.from_config(model.config)) is self.model_class

    def test_plain_save_copies_no_code(self, tmp_path):
        self.make_model().save_pretrained(tmp_path)
        assert not list(tmp_path.glob("*.py"))

    # gradients

    def loss_of(self, model) -> torch.Tensor:
        output = self.main(self.run(model))
        weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
        return (output * weights).sum() if output.ndim else output

    def gradients(self, model) -> dict[str, torch.Tensor]:
        model.zero_grad()
        self.loss_of(model).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    def test_every_trainable_parameter_gets_gradient(self):
        missing = {name for name, grad in self.gradients(self.make_model()).items() if grad is None}
        assert missing == set(self.unused_parameters)

    @pytest.mark.parametrize("use_reentrant", [True, False])
    def test_gradient_checkpointing_changes_no_gradient(self, use_reentrant):
        model = self.make_model().train()
        for module in model.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        state = copy.deepcopy(model.state_dict())
        plain = copy.deepcopy(self.gradients(model))
        model.load_state_dict(state)  # buffers may move in training
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        assert model.is_gradient_checkpointing
        for name, grad in self.gradients(model).items():
            if grad is not None:
                torch.testing.assert_close(grad, plain[name], rtol=1e-5, atol=1e-6)
