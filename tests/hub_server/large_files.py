"""The calls of git LFS: batch, PUT whole or in parts, completion, verification. The uploads themselves are in `uploads`."""

import math

from tests.hub_server.exchange import Answer, Request, Where, bad_request, entry_not_found, json_answer
from tests.hub_server.hub import Hub

LFS_JSON = "application/vnd.git-lfs+json"


def batch(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST {repo}.git/info/lfs/objects/batch`. An object that is there already gets no actions."""
    kind = "dataset" if where["prefix"] else "model"
    repository = hub.access(request, kind, where["repo"], "propose")
    wanted = request.json()
    if wanted.get("operation") != "upload":
        raise bad_request("this Hub's LFS takes uploads alone; files are read by resolve")
    multipart = "multipart" in wanted.get("transfers", ["basic"])
    objects = []
    for one in wanted["objects"]:
        oid, size = one["oid"], one["size"]
        entry = {"oid": oid, "size": size}
        if oid not in repository.lfs:
            key = hub.uploads.open(repository, oid, size)
            in_parts = multipart and size > hub.multipart_above_bytes
            entry["actions"] = {
                "upload": _parts(hub, key, size)
                if in_parts
                else {"href": f"{hub.endpoint}/lfs/{key}", "header": {}},
                "verify": {
                    "href": f"{hub.endpoint}/{where['prefix']}{where['repo']}.git/info/lfs/objects/verify"
                },
            }
        objects.append(entry)
    said = {"transfer": "multipart" if multipart else "basic", "objects": objects, "hash_algo": "sha256"}
    return json_answer(said)._replace(headers=(("Content-Type", LFS_JSON),))


def put(hub: Hub, request: Request, where: Where) -> Answer:
    """`PUT /lfs/{key}`: the whole object."""
    upload = hub.uploads.find(where["key"])
    upload.finish(request.body)
    return Answer(headers=(("ETag", f'"{upload.oid[:32]}"'),))


def put_part(hub: Hub, request: Request, where: Where) -> Answer:
    """`PUT /lfs/{key}/{part}`: a part; its ETag comes back in the completion."""
    number = int(where["part"])
    hub.uploads.find(where["key"]).parts[number] = request.body
    return Answer(headers=(("ETag", _etag(number, request.body)),))


def complete(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /lfs/{key}`: the parts are all there."""
    upload = hub.uploads.find(where["key"])
    named = [(part["partNumber"], part["etag"]) for part in request.json()["parts"]]
    there = [(number, _etag(number, data)) for number, data in sorted(upload.parts.items())]
    if named != there:
        raise bad_request(
            f"One or more of the specified parts could not be found: {named} were named, {there} came"
        )
    upload.finish(b"".join(data for _, data in sorted(upload.parts.items())))
    return json_answer({})


def verify(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST {repo}.git/info/lfs/objects/verify`."""
    kind = "dataset" if where["prefix"] else "model"
    repository = hub.access(request, kind, where["repo"], "propose")
    wanted = request.json()
    data = repository.lfs.get(wanted["oid"])
    if data is None or len(data) != wanted["size"]:
        raise entry_not_found(f"the object {wanted['oid']} was not uploaded")
    return json_answer({})


def _parts(hub: Hub, key: str, size: int) -> dict[str, object]:
    count = math.ceil(size / hub.part_bytes)
    parts = {str(number): f"{hub.endpoint}/lfs/{key}/{number}" for number in range(1, count + 1)}
    return {"href": f"{hub.endpoint}/lfs/{key}", "header": {"chunk_size": str(hub.part_bytes), **parts}}


def _etag(number: int, data: bytes) -> str:
    return f'"{number:05d}-{len(data)}"'
