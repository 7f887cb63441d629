"""An image as a registry has it: its index, its manifests, their platforms."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import assemble, oci
from .assemble import Image, Member
from .errors import SociIndexError
from .oci import Json
from .references import Reference
from .registry import NotFoundError, Registry

Ask = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


@dataclass(frozen=True)
class ImageReader:
    """Reads images.

    Attributes:
        registry: where they are.
        ask: answers a question about each of several things, at once.
    """

    registry: Registry
    ask: Ask

    def read(self, source: Reference, notes: list[str]) -> Image:
        """The image, with all its manifests; `notes` hears of what is odd about it.

        Raises:
            SociIndexError: it is not there, or is no image.
        """
        root, content = self.registry.manifest(source, source.digest or source.tag)
        media_type = str(root.get("mediaType", ""))
        if media_type.startswith(oci.SCHEMA1):
            cause = f"{source.name} is of the schema 1 that registries have left"
            raise SociIndexError(cause, "build the image again, or pull and push it with a current tool")
        parsed = json.loads(content)
        if media_type in oci.INDEX_TYPES:
            members = self.ask(
                lambda descriptor: self._member(source, descriptor, notes), parsed["manifests"]
            )
            return Image(root, parsed, members)
        config = parsed.get("config") or {}
        if media_type not in oci.MANIFEST_TYPES or config.get("mediaType") not in oci.CONFIG_TYPES:
            kind = config.get("mediaType") or media_type
            raise SociIndexError(f"{source.name} is no container image ({kind})", "name an image")
        platform = platform_of(self.registry, source, config)
        descriptor = {key: root[key] for key in ("mediaType", "digest", "size")} | {"platform": platform}
        return Image(root, None, [Member(descriptor, parsed, platform)])

    def _member(self, source: Reference, descriptor: Json, notes: list[str]) -> Member:
        platform = descriptor.get("platform")
        if descriptor.get("mediaType") not in oci.MANIFEST_TYPES:
            if descriptor.get("mediaType") in oci.INDEX_TYPES:
                notes.append(f"an index in its index, {descriptor['digest']}, is carried as it is")
            return Member(descriptor, None, platform)
        try:
            content = json.loads(self.registry.manifest(source, descriptor["digest"])[1])
        except NotFoundError:
            where = assemble.platform_text(platform)
            notes.append(f"{where} is in its index, but not in the registry ({descriptor['digest']})")
            return Member(descriptor, None, platform)
        member = Member(descriptor, content, platform)
        config = content.get("config") or {}
        if platform is None and not member.is_attestation and config.get("mediaType") in oci.CONFIG_TYPES:
            return Member(descriptor, content, platform_of(self.registry, source, config))
        return member


def platform_of(registry: Registry, source: Reference, config: Json) -> Json:
    """The platform in an image's config, which its descriptor names, as containerd normalizes it.

    Raises:
        RegistryError: it cannot be had.
    """
    content = json.loads(registry.small_blob(source, config["digest"]))
    system, architecture, variant, _ = assemble.normal_platform(content)
    features = {key: content[key] for key in ("os.version", "os.features") if content.get(key)}
    return {"architecture": architecture, "os": system, **features} | (
        {"variant": variant} if variant else {}
    )
