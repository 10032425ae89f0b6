"""The service in this process, ready, with a client that speaks to it; and bundles and images to use."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx2
import numpy as np
from bundle_maker import brightness_model, content, make
from PIL import Image

from spicula import bundle
from spicula.bundle import golden, sealed
from spicula.imaging.preprocess import Preprocess
from spicula.serving.app import build
from spicula.serving.limits import Limits
from spicula.serving.service import Service
from spicula.serving.settings import ServeSettings


@asynccontextmanager
async def serving(*bundles, limits=(), **settings):
    """Yield a client and the service, whose models are loaded."""
    given = ServeSettings(tuple(one.folder for one in bundles), limits=Limits(limits), **settings)
    service = Service(given)
    app = build(service)
    async with app.router.lifespan_context(app):
        while not service.is_ready:
            if service.failure is not None:
                raise service.failure
            await asyncio.sleep(0.01)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
            yield client, service


def with_golden(made, **changes):
    """Let a bundle record its golden answers, or others, as an export does."""
    info = json.loads((made.folder / "bundle.json").read_text())
    info["golden"] = golden.record(made) | changes
    (made.folder / "bundle.json").write_text(sealed.seal(info))
    return bundle.load(made.folder)


def colour_bundle(to, size=(16, 12), **changes):
    """A bundle for colour images, of the brightness of its preprocessed image."""
    preprocess = Preprocess(size=size, channels=3)
    return make(
        to,
        model=brightness_model(channels=3, size=size),
        input=content()["input"] | {"shape": ["batch", 3, *size]},
        preprocessing={"digest": preprocess.digest(), "settings": preprocess.model_dump(mode="json")},
        **changes,
    )


def uploads(*files):
    """Files, each as a part of a form; a name of its own for each."""
    data = [one if isinstance(one, bytes) else one.read_bytes() for one in files]
    return [("file", (f"{number}.png", one)) for number, one in enumerate(data)]


def noise(path, seed=0, size=(20, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
