import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { talk } from "./typescript.mjs";

await talk(Client, StreamableHTTPClientTransport, StdioClientTransport, {
  versionNegotiation: { mode: process.env.TALK_MODE },
});
