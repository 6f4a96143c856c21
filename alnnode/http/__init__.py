"""What every HTTP route relies on: access control, limits, content negotiation and the route table."""
