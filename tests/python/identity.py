"""Makes tokens for Kafka, as an identity provider does: OAuth 2 with a client's secret, or with an assertion that it signed.

Comes in: a folder with the keys `identity` and `client`, the certificate `broker`, and a port. With the port 0 it prints the public
key as Kafka takes it (JWKS) and ends. The file `lifetime` says for how many seconds tokens hold, the file `status` with what
every request is answered. OpenSSL's command signs and checks.
"""

import base64
import http.server
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.parse

order = json.loads(sys.argv[1])
folder, port = order["folder"], order["port"]
SECRET = "s3cr3t-of-the-reader"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def at(name):
    return os.path.join(folder, name)


def openssl(*arguments, given=None):
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True)


def pack(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def unpack(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def keys():
    modulus = openssl("rsa", "-in", at("identity.key"), "-noout", "-modulus").stdout.decode().strip().split("=")[1]
    key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "e": "AQAB", "n": pack(bytes.fromhex(modulus)).decode()}
    return {"keys": [key]}


def setting(name, default):
    try:
        with open(at(name)) as file:
            return int(file.read())
    except FileNotFoundError:
        return default


def token(who):
    now = int(time.time())
    claims = {"iss": "https://identity.test", "aud": "kafka", "sub": who, "scope": "kafka", "iat": now}
    claims["exp"] = now + setting("lifetime", 3600)
    head = {"alg": "RS256", "kid": "1", "typ": "JWT"}
    text = b".".join(pack(json.dumps(part).encode()) for part in (head, claims))
    return (text + b"." + pack(openssl("dgst", "-sha256", "-sign", at("identity.key"), given=text).stdout)).decode()


def is_signed(assertion):
    """Whether the client signed it, for us, and it holds now."""
    text, _, signature = assertion.rpartition(".")
    with open(at("signature"), "wb") as file:
        file.write(unpack(signature))
    public = openssl("x509", "-in", at("client.crt"), "-pubkey", "-noout").stdout
    with open(at("client.pub"), "wb") as file:
        file.write(public)
    checked = openssl("dgst", "-sha256", "-verify", at("client.pub"), "-signature", at("signature"), given=text.encode())
    claims = json.loads(unpack(text.split(".")[1]))
    holds = claims["nbf"] <= time.time() < claims["exp"] and len(claims["jti"]) == 36
    return checked.returncode == 0 and holds and (claims["sub"], claims["aud"]) == ("lake", "identity")


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = urllib.parse.parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        with open(at("asked"), "a") as file:
            file.write("one\n")
        status = setting("status", 200)
        if asked["grant_type"] == [GRANT]:
            known = is_signed(asked["assertion"][0])
        else:
            expected = b"Basic " + base64.b64encode(f"lake:{SECRET}".encode())
            known = asked["scope"] == ["kafka"] and self.headers["authorization"].encode() == expected
        if status != 200:
            self.answer(status, {"error": "temporarily_unavailable"})
        elif self.path == "/token" and known:
            self.answer(200, {"access_token": token("lake"), "token_type": "Bearer", "expires_in": setting("lifetime", 3600)})
        else:
            self.answer(401, {"error": "invalid_client", "error_description": "nobody we know"})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if port == 0:
    print(json.dumps(keys()))
else:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(at("broker.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()
