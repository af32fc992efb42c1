"""From the socket to a request, and back: the gRPC server, who may call, what an error looks like."""
