# What the package's koder-gateway.toml has otherwise than the sample: a fresh install is not open to the world.
/^#port = "ssl:443"$/c\
# As installed, this machine alone is listened to, since every well-formed slug is a tenant until tenants.registry says\
# which there are, and a self-signed certificate serves until tls.certificates does. Set these two, the addresses of\
# the services and tenants.base_domain; then let the world in: port = "ssl:443".\
port = "ssl:443:interface=127.0.0.1"
