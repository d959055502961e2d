"""Feature networks: the trained classifier and its cache, EfficientNet-Lite0, a TorchScript file."""

from pathlib import Path

import pytest
import torch
from torch import nn

from led_fast.data.images import ImageCollection, ImageSet, ImageSource, open_images
from led_fast.errors import InputError
from led_fast.evaluation import FeatureNetwork, open_features
from led_fast.evaluation.features import extract_features, train_classifier
from led_fast.evaluation.features.efficientnet_lite import EfficientNetLite0, load_efficientnet_lite0

FASHION = Path(__file__).parent / "data" / "fashion-mnist"


@pytest.fixture(scope="module")
def fashion():
    return open_images(FASHION)


@pytest.fixture
def unlabelled():
    return ImageSource("bare", ImageCollection(ImageSet(torch.zeros(200, 1, 8, 8, dtype=torch.uint8))))


def test_the_classifier_learns_and_is_cached(fashion, tmp_path, monkeypatch):
    state = torch.get_rng_state()
    first = train_classifier(fashion, cache=tmp_path / "new", steps=40)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.name == "classifier of fashion-mnist (128 features)"
    assert first.accuracy > 0.6  # of 360 images; chance is 0.1
    (file,) = (tmp_path / "new").iterdir()
    images = fashion.split("test")
    features = extract_features(first, images)
    assert features.shape == (150, 128) and features.dtype == torch.float64

    def refuse(*_):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr("led_fast.evaluation.features.classifier._train", refuse)
        again = train_classifier(fashion, cache=tmp_path / "new", steps=40)
        with pytest.raises(AssertionError, match="trained again"):
            train_classifier(fashion, cache=tmp_path / "other", steps=40)
        patch.setattr("led_fast.evaluation.features.classifier._LEARNING_RATE", 1e-3)  # another network then
        with pytest.raises(AssertionError, match="trained again"):
            train_classifier(fashion, cache=tmp_path / "new", steps=40)
    assert torch.equal(extract_features(again, images), features) and again.accuracy == first.accuracy

    file.write_bytes(file.read_bytes()[:100])  # a broken cache costs a training, which gives the same network
    retrained = train_classifier(fashion, cache=tmp_path / "new", steps=40)
    torch.testing.assert_close(extract_features(retrained, images), features)


def test_a_cache_that_cannot_be_written_is_done_without(fashion, tmp_path):
    (tmp_path / "file").write_text("")
    assert train_classifier(fashion, cache=tmp_path / "file", steps=2).accuracy is not None


def test_the_users_cache(fashion, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("led_fast.evaluation.features.classifier._train", lambda *_: None)
    open_features("classifier", fashion)
    assert len(list((tmp_path / "led_fast").glob("classifier-*.safetensors"))) == 1


def test_data_that_cannot_train_a_classifier(unlabelled, tmp_path):
    with pytest.raises(InputError, match="bare: has no labels to train a classifier on"):
        open_features("classifier", unlabelled)
    images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    one_class = ImageSource("one", ImageCollection(ImageSet(images, torch.zeros(200, dtype=torch.int64))))
    with pytest.raises(InputError, match=r"one: want labels 0, 1, ..., got \[0\]"):
        train_classifier(one_class, cache=tmp_path)


def test_efficientnet_lite0_has_the_published_size():
    network = EfficientNetLite0()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    with torch.no_grad():
        gray = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8)
        features = network.eval()(gray)
        assert features.shape == (1, 1280) and network.classify(gray).shape == (1, 1000)
        torch.testing.assert_close(network(gray.expand(-1, 3, -1, -1)), features)


def test_efficientnet_lite0_pads_as_tensorflow_does():
    # Even size, stride 2, kernel 3: no pixel before, one after. So the kernel's first tap sees pixels 0, 2, 4, ...
    stem = EfficientNetLite0()._conv_stem
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        stem.weight.zero_()
        stem.weight[0, 1, 0, 0] = 1
        torch.testing.assert_close(stem(image)[0, 0], image[0, 1, ::2, ::2])


def test_weights_from_a_file(tmp_path, unlabelled):
    torch.manual_seed(0)
    network = EfficientNetLite0()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    features = open_features(str(tmp_path / "a.pth"), unlabelled)
    assert features.name.startswith("EfficientNet-Lite0") and features.accuracy is None
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(extract_features(features, images), network.eval()(images).double())
    for content in (b"", b"no weights", (tmp_path / "a.pth").read_bytes()[:1000]):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.pth: not the weights of EfficientNet-Lite0"):
            load_efficientnet_lite0(tmp_path / "bad.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"bad\.pth: not the weights of EfficientNet-Lite0"):
        load_efficientnet_lite0(tmp_path / "bad.pth")


class Inception(nn.Module):
    """Has the signature of the Inception file of the StyleGAN papers."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        values = images.flatten(1).float()
        return values if return_features else values[:, :10]


class Plain(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("module", [Inception, Plain])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_file(tmp_path, unlabelled, module):
    torch.jit.script(module()).save(str(tmp_path / "a.pt"))
    features = open_features(str(tmp_path / "a.pt"), unlabelled)
    images = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    assert features.name == "TorchScript file a.pt"
    assert torch.equal(extract_features(features, images), images.expand(-1, 3, -1, -1).flatten(1).double())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "name, message",
    [
        ("inception", "features: want classifier, or a .pth or .pt file, got 'inception'"),
        ("none.pt", "no such file"),
        ("bad.pt", "not a TorchScript file"),
    ],
)
def test_unknown_features(tmp_path, monkeypatch, unlabelled, name, message):
    monkeypatch.chdir(tmp_path)
    Path("bad.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=message):
        open_features(name, unlabelled)


def test_features_of_another_shape_or_not_finite():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"odd: want features of shape \(4, d\) .*, got \(4, 1, 8, 8\)"):
        extract_features(FeatureNetwork("odd", lambda x: x), images)
    with pytest.raises(ValueError, match="odd: features are not all finite"):
        extract_features(FeatureNetwork("odd", lambda x: x.flatten(1) / 0), images)


def test_features_that_fail_on_these_images():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    wide = torch.nn.Linear(9, 2)
    for network in (lambda x: wide(x.float()), lambda x: (x.float(), x.float())):
        with pytest.raises(InputError, match=r"odd: cannot be applied to images of shape \(1, 8, 8\) \("):
            extract_features(FeatureNetwork("odd", network), images)
