"""How each peer is told to do the gateway's duties: a tenant by host, CORS, a wide and a tight limit, routes.

Each text is a template with these names: `folder` of the peer, `tls` and `plain` (its ports), `service` and
`bulk_service` (the ports of the services behind it), `certificate` and `key` (PEM files), `both` (the two in one
file), `origin`, `users`, `tight` and `bulk` (paths), `base` (domain), `host` (of a tenant), and `unbounded` (sections
of the gateway's). The same certificate, TLS 1.2 or newer, HTTP/2 and tickets for all; no access log; connections to
clients and to the service are kept, and bodies pass as they come.
"""

from __future__ import annotations

from typing import Final

GATEWAY: Final = """\
[tenants]
base_domain = "{base}"

[services]
identity = "http://127.0.0.1:{service}"
auth = "http://127.0.0.1:{bulk_service}"

[[routes]]
path = "{users}"
service = "identity"

[[routes]]
path = "{bulk}"
service = "auth"

[cors]
origins = ["{origin}"]

[tls]
certificates = "certs"

{unbounded}
[[limits]]
name = "wide"
key = ["tenant", "ip"]
rate = "1000000/s"

[[limits]]
name = "tight"
key = ["tenant", "ip"]
rate = "1/h"
paths = ["{tight}"]
"""

# As root its worker is root too, since the folder is its owner's alone; for others the first line means nothing.
NGINX: Final = """\
user root;
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  limit_req_zone $binary_remote_addr zone=wide:10m rate=1000000r/s;
  limit_req_zone $binary_remote_addr zone=tight:10m rate=1r/m;
  limit_req_status 429;
  upstream service {{ server 127.0.0.1:{service}; keepalive 256; keepalive_requests 1000000000; }}
  upstream bulk {{ server 127.0.0.1:{bulk_service}; keepalive 256; keepalive_requests 1000000000; }}
  map $http_origin $allowed {{ "{origin}" $http_origin; }}
  server {{
    listen 127.0.0.1:{tls} ssl http2 backlog=4096;
    listen 127.0.0.1:{plain} backlog=4096;
    server_name ~^(?<tenant>[a-z0-9-]+)\\.{base}$;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;
    proxy_set_header Connection ""; proxy_set_header Host $http_host;
    proxy_set_header X-Tenant-ID $tenant; proxy_set_header X-Request-ID $request_id;
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    add_header Access-Control-Allow-Origin $allowed always;
    add_header Access-Control-Allow-Credentials true always; add_header Vary Origin always;
    location {users} {{
      limit_req zone=wide burst=1000000 nodelay;
      if ($request_method = OPTIONS) {{
        add_header Access-Control-Allow-Origin $allowed; add_header Access-Control-Allow-Credentials true;
        add_header Access-Control-Allow-Methods "GET, POST, PUT, PATCH, DELETE"; add_header Vary Origin;
        return 204;
      }}
      proxy_pass http://service;
    }}
    location {tight} {{ limit_req zone=tight; proxy_pass http://service; }}
    location {bulk} {{ limit_req zone=wide burst=1000000 nodelay; proxy_pass http://bulk; }}
    location / {{ return 404; }}
  }}
}}
"""

HAPROXY: Final = """\
global
  nbthread 1
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  option forwardfor
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  timeout http-request 10s
  timeout http-keep-alive 1h
frontend gateway
  bind 127.0.0.1:{tls} ssl crt {both} alpn h2,http/1.1
  bind 127.0.0.1:{plain}
  http-request set-var(txn.host) req.hdr(host),field(1,:)
  http-request return status 421 unless {{ var(txn.host) -m end .{base} }}
  http-request set-var(txn.tenant) var(txn.host),field(1,.)
  http-request set-var(txn.origin) req.hdr(origin)
  acl allowed var(txn.origin) -m str {origin}
  http-request return status 204 hdr Access-Control-Allow-Origin %[var(txn.origin)] \
hdr Access-Control-Allow-Credentials true hdr Access-Control-Allow-Methods "GET, POST, PUT, PATCH, DELETE" \
hdr Vary Origin if METH_OPTIONS allowed
  http-response set-header Access-Control-Allow-Origin %[var(txn.origin)] if {{ var(txn.origin) -m found }}
  http-request track-sc0 src table wide
  http-request return status 429 hdr Retry-After 1 if {{ sc_http_req_rate(0) gt 100000000 }}
  http-request track-sc1 src table tight if {{ path {tight} }}
  http-request return status 429 hdr Retry-After 60 if {{ path {tight} }} {{ sc_http_req_rate(1) gt 1 }}
  http-request return status 404 unless {{ path {users} {bulk} }} or {{ path_beg {users}/ {bulk}/ }}
  http-request set-header X-Tenant-ID %[var(txn.tenant)]
  http-request set-header X-Request-ID %[uuid()]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
  use_backend bulk if {{ path_beg {bulk} }}
  default_backend service
backend bulk
  http-reuse always
  server bulk 127.0.0.1:{bulk_service} pool-max-conn 256
backend service
  http-reuse always
  server service 127.0.0.1:{service} pool-max-conn 256
backend wide
  stick-table type ip size 100k expire 1h store http_req_rate(60s)
backend tight
  stick-table type ip size 100k expire 1h store http_req_rate(1h)
"""

# The stock build has no limits. Clients that come by address name no host of ours.
CADDY: Final = """\
{{
  admin off
  auto_https off
  default_sni {host}
  storage file_system {folder}/storage
  log {{
    level ERROR
  }}
  servers {{
    protocols h1 h2
  }}
}}
(proxied) {{
  header_up X-Tenant-ID {{labels.2}}
  header_up X-Request-ID {{http.request.uuid}}
  transport http {{
    keepalive_idle_conns_per_host 256
  }}
}}
(duties) {{
  header Access-Control-Allow-Origin {origin}
  header Access-Control-Allow-Credentials true
  header Vary Origin
  @preflight {{
    method OPTIONS
    header Origin {origin}
    header Access-Control-Request-Method *
  }}
  handle @preflight {{
    header Access-Control-Allow-Methods "GET, POST, PUT, PATCH, DELETE"
    respond 204
  }}
  @users path {users} {users}/*
  handle @users {{
    reverse_proxy 127.0.0.1:{service} {{
      import proxied
    }}
  }}
  @bulk path {bulk} {bulk}/*
  handle @bulk {{
    reverse_proxy 127.0.0.1:{bulk_service} {{
      import proxied
    }}
  }}
  handle {{
    respond 404
  }}
}}
https://*.{base}:{tls} {{
  bind 127.0.0.1
  tls {certificate} {key}
  import duties
}}
http://*.{base}:{plain} {{
  bind 127.0.0.1
  import duties
}}
"""

TRAEFIK: Final = """\
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
entryPoints:
  tls: {{address: "127.0.0.1:{tls}"}}
  plain: {{address: "127.0.0.1:{plain}"}}
serversTransport: {{maxIdleConnsPerHost: 256}}
providers:
  file: {{filename: "{folder}/dynamic.yml", watch: false}}
"""

# It cannot take the tenant from the host without a plugin: the one tenant of the load stands here.
TRAEFIK_DYNAMIC: Final = """\
tls:
  certificates: [{{certFile: "{certificate}", keyFile: "{key}"}}]
http:
  services:
    service: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{service}"}}]}}}}
    bulk: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{bulk_service}"}}]}}}}
  middlewares:
    tenant: {{headers: {{customRequestHeaders: {{X-Tenant-ID: acme}}}}}}
    cors:
      headers:
        accessControlAllowOriginList: ["{origin}"]
        accessControlAllowMethods: [GET, POST, PUT, PATCH, DELETE]
        accessControlAllowCredentials: true
        addVaryHeader: true
    wide: {{rateLimit: {{average: 1000000, burst: 1000000}}}}
    tight: {{rateLimit: {{average: 1, period: 1h, burst: 1}}}}
  routers:
{routers}"""

# One for each port and path: a router with TLS hears nothing else.
TRAEFIK_ROUTER: Final = """\
    {name}:
      rule: HostRegexp(`^[a-z0-9-]+\\.{base}$`) && PathPrefix(`{path}`)
      entryPoints: [{port}]
      middlewares: [{middlewares}]
      service: {service}
{tls}"""
