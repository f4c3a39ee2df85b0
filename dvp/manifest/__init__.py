"""What a conversion made: the manifest beside a task's tables, and how its files come into place together."""

from dvp.manifest.hashes import hash_of, image_hash
from dvp.manifest.manifest import VERSION, Manifest, listing_name, manifest_beside, manifest_name, read_manifest
from dvp.manifest.placing import alone_in, finish, put_in_place, staged

__all__ = [
    "VERSION",
    "Manifest",
    "alone_in",
    "finish",
    "hash_of",
    "image_hash",
    "listing_name",
    "manifest_beside",
    "manifest_name",
    "put_in_place",
    "read_manifest",
    "staged",
]
