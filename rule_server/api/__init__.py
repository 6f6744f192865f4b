"""The service's interfaces: REST, MCP, the web page, middleware and authentication."""
