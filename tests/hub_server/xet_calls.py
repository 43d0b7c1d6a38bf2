"""The calls of Xet: the Hub's token route, and the store's own (below `/xet-cas`, with its own tokens).

Not offered: finding the chunks of others (404, nothing is known), downloads by reconstruction (files are read by resolve).
Without `Hub.xet_grants` the store takes xorbs directly, as it did before hf_xet 1.8.
"""

import time

from tests.hub_server.exchange import Answer, Refusal, Request, Where, json_answer, refusal
from tests.hub_server.hub import Hub, Right

_TOKEN_LIFE_S = 3600


def token(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET …/xet-{read|write}-token/{revision}`."""
    if not hub.xet:
        raise refusal(404, "Not Found")
    write = where["scope"] == "write"
    right: Right = ("propose" if request.flag("create_pr") else "write") if write else "read"
    repository = hub.access(request, where["kind"], where["repo"], right)
    repository.commit(where["revision"])
    issued, expires_s = hub.cas.issue(repository, write=write), int(time.time()) + _TOKEN_LIFE_S
    address = f"{hub.endpoint}/xet-cas"
    return json_answer(
        {"accessToken": issued, "exp": expires_s, "casUrl": address},
        X_Xet_Cas_Url=address,
        X_Xet_Access_Token=issued,
        X_Xet_Token_Expiration=str(expires_s),
    )


def grant(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /v1/xorb-grants/{prefix}/{hash}`: 201 with an address to upload to, 200 for a xorb that is there."""
    hub.cas.admit(request.token, write=True)
    if not hub.xet_grants:
        raise refusal(404, "Not Found")
    if where["hash"] in hub.cas.xorbs:
        return json_answer({})
    key = hub.cas.grant(where["hash"], request.json()["length"])
    return json_answer(
        {"id": key, "method": "PUT", "url": f"{hub.endpoint}/xet-upload/{key}", "headers": {}}, 201
    )


def granted(hub: Hub, request: Request, where: Where) -> Answer:
    """`PUT /xet-upload/{id}`: the xorb, without a token, as to a signed address of S3."""
    hub.cas.fill(where["id"], request.body)
    return Answer()


def grant_commit(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /v1/xorb-commits/{prefix}/{hash}/grant/{id}`: 404 if nothing was uploaded."""
    hub.cas.admit(request.token, write=True)
    return json_answer({"was_inserted": hub.cas.add_xorb(where["hash"], hub.cas.uploaded(where["id"]))})


def known_chunk(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET /v1/chunks/{prefix}/{hash}`: nothing is known."""
    hub.cas.admit(request.token, write=False)
    raise refusal(404, "Not Found")


def xorb(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /v1/xorbs/{prefix}/{hash}`."""
    hub.cas.admit(request.token, write=True)
    return json_answer({"was_inserted": hub.cas.add_xorb(where["hash"], request.body)})


def shard(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /v1/shards`, and `/v2/shards`, which answers in lines and says what is wrong in the last one."""
    repository = hub.cas.admit(request.token, write=True)
    if where["version"] == "1":
        hub.cas.add_shard(repository, request.body)
        return json_answer({"result": 1})
    try:
        hub.cas.add_shard(repository, request.body)
        line = b'{"type":"result"}\n'
    except Refusal as error:
        return json_answer({"type": "error", "message": str(error), "retryable": False})
    return Answer(200, line, (("Content-Type", "application/x-ndjson"),))


def telemetry(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /v1/telemetry`: figures about the upload, which hf_xet sends unless HF_HUB_DISABLE_TELEMETRY is set."""
    return json_answer({})
