"""Extract and verify networks of torchvision, timm and transformers, with random weights.

    python benchmarks/architectures.py [--only GLOB] [--write docs/models.md]

A network passes if `verify` holds, and parameters, buffers, modes and hooks are as before.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fastconv
from fastconv.errors import FastconvError

IMAGE, LARGE, CLIP = (3, 64, 64), (3, 224, 224), (3, 8, 64, 64)
START, END = "<!-- made by benchmarks/architectures.py -->", "<!-- end -->"


def _vision(name: str, **options: Any) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, **options)


def _timm(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **options)


def _hf(name: str, **config: Any) -> nn.Module:
    import transformers

    settings = getattr(transformers, f"{name}Config")(**config)
    return getattr(transformers, f"{name}Model")(settings)


def _detr() -> nn.Module:
    from transformers import ResNetConfig

    backbone = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        out_features=["stage4"],
    )
    return _hf(
        "Detr", use_timm_backbone=False, backbone_config=backbone, use_pretrained_backbone=False,
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=64, decoder_ffn_dim=64,
        encoder_attention_heads=2, decoder_attention_heads=2, num_queries=10,
    )  # fmt: skip


def _as_list(model: nn.Module, batch: torch.Tensor) -> Any:
    return model(list(batch))


DETECTION = {"weights_backbone": None, "num_classes": 5}
SMALL_HF = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}

# family, name: how it is made, shape of a sample, options of extract
Case = tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]
CASES: dict[tuple[str, str], Case] = {}


def _add(
    family: str,
    make: Any,
    names: str,
    shape: tuple[int, ...] = IMAGE,
    given: Any = None,
    **options: Any,
) -> None:
    for name in names.split():
        CASES[family, name] = (partial(make, name, **(given or {})), shape, options)


_add(
    "classification",
    _vision,
    "alexnet vgg11_bn resnet18 resnext50_32x4d densenet121 googlenet squeezenet1_1 mobilenet_v2 "
    "mobilenet_v3_small mnasnet0_5 shufflenet_v2_x0_5 efficientnet_b0 regnet_x_400mf convnext_tiny",
)
_add("classification", _vision, "inception_v3", (3, 128, 128))
_add("hybrid", _vision, "swin_t")
_add("hybrid", _vision, "maxvit_t", LARGE)
_add(
    "segmentation",
    _vision,
    "fcn_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large",
    given={"weights_backbone": None},
)
_add(
    "detection",
    _vision,
    "fasterrcnn_mobilenet_v3_large_320_fpn ssdlite320_mobilenet_v3_large",
    given=DETECTION,
    forward=_as_list,
)
_add(
    "detection",
    _vision,
    "retinanet_resnet50_fpn maskrcnn_resnet50_fpn",
    given={**DETECTION, "min_size": 96, "max_size": 128},
    forward=_as_list,
    layers=["backbone.body.conv1", "backbone.body.*.conv?", "backbone.fpn.*"],
)
_add("video", _vision, "r3d_18 mc3_18 r2plus1d_18", CLIP)
_add(
    "classification",
    _timm,
    "resnet10t convnextv2_atto mobilenetv4_conv_small ghostnet_100 hrnet_w18_small resnest14d "
    "repvgg_a0 tinynet_e res2net50_26w_4s rexnet_100 lcnet_050 skresnet18 seresnet18 "
    "resnetv2_50 nf_regnet_b0",
)
_add(
    "hybrid",
    _timm,
    "mobilevit_xxs edgenext_xx_small efficientformerv2_s0 fastvit_t8 coat_lite_tiny levit_128s "
    "poolformer_s12 pvt_v2_b0",
    LARGE,
)
_add("classification", _hf, "ConvNext", given=SMALL_HF)
_add(
    "segmentation",
    _hf,
    "Segformer",
    given={"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1]},
)
_add(
    "hybrid",
    _hf,
    "MobileViT",
    given={
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48],
        "image_size": 64,
    },
)
_add(
    "audio",
    _hf,
    "Wav2Vec2",
    (4000,),
    given={
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": [16] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
)
CASES["detection", "Detr"] = (_detr, IMAGE, {})


def look(model: nn.Module) -> list[Any]:
    """All that extraction must leave as it was."""
    hooks = [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m))
        for m in model.modules()
    ]
    return [{k: v.clone() for k, v in model.state_dict().items()}, hooks]


def same(a: list[Any], b: list[Any]) -> bool:
    return a[1] == b[1] and all(torch.equal(v, b[0][k]) for k, v in a[0].items())


def measure(family: str, name: str) -> dict[str, Any]:
    """One network through `extract` and `verify`."""
    make, shape, options = CASES[family, name]
    torch.manual_seed(0)
    model = make()
    data = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    before = look(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = Path(folder) / "run.h5"
        began = time.perf_counter()
        run = fastconv.extract(model, data, path, topk=2, batch_size=2, progress=False, **options)
        seconds = time.perf_counter() - began
        report = fastconv.verify(path, model, data, forward=options.get("forward"))
        infos = [run[layer].info for layer in run.layers]
        run.close()
    return {
        "family": family,
        "name": name,
        "layers": len(infos),
        "status": dict(Counter(info.status for info in infos)),
        "left out": sum("left out" in str(w.message) for w in said),
        "seconds": round(seconds, 1),
        "verified": bool(report),
        "unchanged": same(before, look(model)),
        "report": "" if report else str(report),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| family | network | layers | exact | bound | global | left out | verified | as found |",
        "|---|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for r in rows:
        counts = " | ".join(str(r["status"].get(s, 0)) for s in ("exact", "bound", "global"))
        ends = " | ".join("yes" if r[k] else "NO" for k in ("verified", "unchanged"))
        lines.append(
            f"| {r['family']} | {r['name']} | {r['layers']} | {counts} | {r['left out']} | {ends} |"
        )
    used = ("torch", "torchvision", "timm", "transformers")
    packages = ", ".join(f"{name} {version(name)}" for name in used)
    return "\n".join([*lines, "", f"{len(rows)} networks; {packages}."])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", help="names of networks, a glob")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    args = parser.parse_args()
    rows, failed = [], 0
    for family, name in sorted(key for key in CASES if fnmatch(key[1], args.only)):
        try:
            row = measure(family, name)
        except (RuntimeError, ValueError, TypeError, AssertionError, FastconvError) as error:
            text = f"{type(error).__name__}: {error}"
            print("FAIL", name, text[:300], file=sys.stderr, flush=True)
            failed += 1
            continue
        gc.collect()
        rows.append(row)
        good = row["verified"] and row["unchanged"]
        failed += not good
        print("ok  " if good else "FAIL", name, row["seconds"], file=sys.stderr, flush=True)
        if row["report"]:
            print(row["report"][:2000], file=sys.stderr)
    found = table(rows)
    if args.write:
        page = args.write.read_text()
        head, tail = page[: page.index(START)], page[page.index(END) :]
        args.write.write_text(f"{head}{START}\n\n{found}\n\n{tail}")
    print(found)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
