"""Let torchvision's import pass next to a torch it was not compiled for.

The torchvision wheel of the public registry is compiled against the CUDA build of torch. Beside a CPU-only torch its
compiled operators do not load, which torchvision itself tolerates; but it then describes ("fakes") these operators to
torch, which fails with "operator torchvision::nms does not exist" and takes the whole import, and timm's, with it.
Spicula uses none of those operators (they serve object detection), so their description is skipped when they are not
there. Whoever needs timm or torchvision calls `import_torchvision` first.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


def import_torchvision() -> ModuleType:
    """Import torchvision, whatever build of torch is installed, and return it.

    Nothing is left changed in torch: `torch.library.register_fake` is replaced only while the import runs.

    Raises:
        ImportError: torchvision is not installed.
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"]
    original = torch.library.register_fake

    def register_fake(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::") and not _exists(op):
            return _unchanged
        return original(op, *args, **kwargs)

    torch.library.register_fake = register_fake
    try:
        import torchvision
    finally:
        torch.library.register_fake = original
    module: ModuleType = torchvision
    return module


def _exists(qualified_name: str) -> bool:
    namespace, _, name = qualified_name.partition("::")
    return hasattr(getattr(torch.ops, namespace), name.partition(".")[0])


def _unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
