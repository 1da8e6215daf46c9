// The protocol's own client, following a publication through a proxy that ends bodies properly in the middle.
// WRITE_URL: the gateway. Prints what arrived as JSON: {"sse": […], "long-poll": […], "cuts": …}.
import { createServer, request } from "node:http"
import { DurableStream, stream } from "@durable-streams/client"

const gateway = new URL(process.env.GATEWAY_URL)
const count = Number(process.env.COUNT)
let cuts = 0

// A third of the bodies end after some bytes, wherever that is, as if they were whole.
let seed = 7
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647
const proxy = createServer((asked, answer) => {
  const { method, url, headers } = asked
  const onward = request({ host: gateway.hostname, port: gateway.port, method, path: url, headers }, (got) => {
    const { "content-length": _, ...kept } = got.headers
    answer.writeHead(got.statusCode, kept)
    let left = kept["content-type"] === "text/event-stream" ? Math.floor(random() * 2500) : Infinity
    got.on("data", (data) => {
      if (left <= 0) return
      answer.write(data.subarray(0, left))
      left -= data.length
      if (left <= 0) {
        cuts++
        answer.end()
        onward.destroy()
      }
    })
    got.on("end", () => answer.end())
    got.on("error", () => answer.end())
  })
  onward.on("error", () => answer.destroy())
  answer.on("close", () => onward.destroy())
  asked.pipe(onward)
})
await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening))
const base = `http://127.0.0.1:${proxy.address().port}`

// It would go over to long polls after three short connections.
const sseResilience = { minConnectionDuration: 0, maxShortConnections: 1e6, backoffBaseDelay: 1, backoffMaxDelay: 5, logWarnings: false }

const follow = async (path, live) => {
  const got = []
  const reading = await stream({ url: `${base}${path}`, offset: "-1", live, json: true, sseResilience })
  // Not `reading.closed`, which does not wait for the last batches to be handed over.
  await new Promise((ended) =>
    reading.subscribeJson((batch) => {
      got.push(...batch.items)
      if (batch.streamClosed) ended()
    }),
  )
  return got
}

const found = {}
for (const live of ["sse", "long-poll"]) {
  const path = `/v1/stream/client/${process.pid}/${live}`
  const writer = await DurableStream.create({
    url: `${gateway.origin}${path}`,
    contentType: "application/json",
  })
  const reading = follow(path, live)
  for (let n = 0; n < count; n++) await writer.append(JSON.stringify({ n, text: "é".repeat(n % 50) }))
  await writer.close()
  found[live] = await reading
}
proxy.closeAllConnections()
proxy.close()
console.log(JSON.stringify({ ...found, cuts }))
