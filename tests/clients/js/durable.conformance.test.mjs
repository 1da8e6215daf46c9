// The protocol's own suite, against the gateway at CONFORMANCE_URL. Run by test_durable_conformance.py.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: process.env.CONFORMANCE_URL,
  longPollTimeoutMs: Number(process.env.LONG_POLL_MS),
  subscriptions: false,
})
