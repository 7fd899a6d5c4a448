"""httpx with HTTP/2: `ask_httpx.py ADDRESS`."""
import asyncio
import collections
import sys

import httpx


async def ask(client, address, headers):
    answer = await client.get(f"http://{address}/index.html", headers=headers)
    assert answer.status_code == 200, answer
    return answer.http_version, answer.text.strip()


async def main(address):
    async with httpx.AsyncClient(http1=False, http2=True, timeout=10) as client:
        headers = [{"end-user": "ada"} if n % 2 else {} for n in range(200)]
        heard = await asyncio.gather(*(ask(client, address, it) for it in headers))
        answers = collections.Counter((n % 2, *it) for n, it in enumerate(heard))
        assert answers == {(0, "HTTP/2", "v1"): 100, (1, "HTTP/2", "v2"): 100}, answers
        missing = await client.get(f"http://{address}/nothing")
        assert missing.status_code == 404, missing


asyncio.run(main(sys.argv[1]))
