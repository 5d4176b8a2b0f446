"""What tests share: gateways in memory and as processes, clients, services, authorities."""
