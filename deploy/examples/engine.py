#!/usr/bin/env python3
"""A checkpoint engine. Where it says "your part", stop, save and ship your VMs."""
import http.client, json, os, socket, sys, time

class Sluice(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ.get("SLUICE_CONTROL_SOCKET", "/run/sluice/control.sock"))
    def ask(self, method, path, body=None):
        self.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
        reply = json.load(self.getresponse())
        if "code" in reply: sys.exit(f"refused: {reply['code']}: {reply['message']}")
        return reply

sluice = Sluice("sluice")
paths = sluice.ask("GET", "/openapi.json")["paths"]        # what the daemon can do, in its own words
def do(verb, group, query="", **given):
    path = next(path for path in paths if path.endswith("/" + verb) and "post" in paths[path])
    known = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    return sluice.ask("POST", path.replace("{group}", group) + query, {key: given[key] for key in known if key in given})

group, epochs = (sys.argv[1:] + ["web", "100"][len(sys.argv) - 1:])[:2]
now = sluice.ask("GET", f"/v1/groups/{group}")
if now["phase"] == "idle": now = do("protect", group)
for epoch in range(now["open"], now["open"] + int(epochs)):
    time.sleep(0.025)
    # your part: stop the VMs, save what changed since the last checkpoint
    do("cut", group, generation=now["generation"], epoch=epoch)
    # your part: let the VMs run; ship the checkpoint, wait until it is durable
    do("commit", group, "?wait=released", generation=now["generation"], epoch=epoch)  # answered when they are outside
state = sluice.ask("GET", f"/v1/groups/{group}")
print(f"released {state['released']}, still held {state['held']['frames']}")
