"""Names of fields that other software takes for the truth about a request: its client, its URL, its method, its user.

Proxies, balancers and authenticating gateways set them, each its own. From a client they are an invention, so these
never pass; a trusted proxy's pass where they are configured. What honest clients send to services themselves, as
X-Requested-With or X-API-Key, is none of them.
"""

from __future__ import annotations

from typing import Final

# Those that stand alone; all names in lower case.
CLAIMS: Final = frozenset(
    (
        # the client
        b"true-client-ip",
        b"x-client-ip",
        b"client-ip",
        b"x-cluster-client-ip",
        b"proxy-client-ip",
        b"real-ip",
        b"remote-ip",
        b"remote-addr",
        b"remote-host",
        b"x-originating-ip",
        b"x-original-remote-addr",
        b"x-original-forwarded-for",
        b"forwarded-for",
        b"x-forward-for",
        b"x-proxyuser-ip",
        b"ali-cdn-real-ip",
        b"cdn-src-ip",
        b"cf-connecting-ip",
        b"cf-connecting-ipv6",
        b"cf-ipcountry",
        b"cf-pseudo-ipv4",
        b"do-connecting-ip",
        b"fastly-client-ip",
        b"fly-client-ip",
        b"incap-client-ip",
        b"l5d-client-id",
        b"l5d-remote-ip",
        b"x-azure-clientip",
        b"x-azure-socketip",
        b"x-azure-fdid",
        b"x-nf-client-connection-ip",
        b"x-sucuri-clientip",
        b"x-vercel-forwarded-for",
        b"x-client-dn",
        b"x-client-verify",
        b"x-arr-clientcert",
        # what it speaks, its URL and its method
        b"proxy",  # HTTP_PROXY to a CGI (httpoxy, CVE-2016-5385)
        b"front-end-https",
        b"x-https",
        b"x-arr-ssl",
        b"cf-visitor",
        b"x-scheme",
        b"x-url-scheme",
        b"x-original-scheme",
        b"x-original-proto",
        b"x-forward-proto",
        b"forwarded-proto",
        b"forwarded-host",
        b"x-forward-host",
        b"x-host",
        b"x-http-host-override",
        b"x-original-host",
        b"x-original-url",
        b"x-original-uri",
        b"x-original-path",
        b"x-rewrite-url",
        b"x-replaced-path",
        b"script-name",
        b"x-script-name",
        b"path-info",
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x-original-method",
        b"x-accel-mapping",  # where files are, to Rack's Sendfile
        b"x-sendfile-type",
        # the user
        b"remote-user",
        b"remote-name",
        b"remote-email",
        b"remote-groups",
        b"x-webauth-user",
        b"x-webauth-login",
        b"x-webauth-name",
        b"x-webauth-email",
        b"x-webauth-role",
        b"x-webauth-groups",
        b"x-userinfo",
        b"x-consumer-id",
        b"x-consumer-username",
        b"x-consumer-custom-id",
        b"x-consumer-groups",
        b"x-anonymous-consumer",
        b"x-credential-identifier",
        b"x-vouch-user",
        b"x-vouch-success",
        b"oidc-access-token",
        b"oidc-id-token",
        b"oidc-userinfo",
        b"sm-user",
        b"sm-userdn",
        b"sm-universalid",
        b"iv-user",
        b"iv-groups",
        b"iv-creds",
        b"oam-remote-user",
    )
)
# Those that make a family each, known by its beginning.
CLAIM_FAMILIES: Final = (
    # the client, and what proxies say of it
    b"x-remote-",
    b"x-envoy-",
    b"x-appengine-",
    b"cloudfront-",
    b"fly-forwarded-",
    b"wl-proxy-",
    # the client's certificate
    b"ssl-client-",
    b"x-ssl-",
    b"x-tls-client-",
    b"x-client-cert-",
    b"x-amzn-mtls-",
    b"x-amzn-tls-",
    # the user
    b"x-auth-request-",
    b"x-authenticated-",
    b"x-authentik-",
    b"x-pomerium-",
    b"x-vouch-idp-",
    b"x-amzn-oidc-",
    b"x-goog-authenticated-user-",
    b"x-goog-iap-",
    b"x-ms-client-principal-",
    b"x-ms-token-",
    b"cf-access-",
    b"oidc-claim-",
    b"shib-",
    b"tailscale-",
)
_FAMILIES_ALONE: Final = frozenset(family[:-1] for family in CLAIM_FAMILIES)


def is_claim(name: bytes) -> bool:
    """Whether a (lower-case) name is one of these, in its usual spelling."""
    return name in CLAIMS or name in _FAMILIES_ALONE or name.startswith(CLAIM_FAMILIES)
