// The protocol's own client, following a publication through a proxy that loses each reader's connection once,
// after so many bytes of bodies: an event stream ends properly there, as if it were whole; another body breaks off.
// node durable.cuts.mjs FILE, where FILE has { gateway, live: "sse" | "long-poll", kind: "json" | "bytes", pieces,
// offsets } as JSON, pieces in base64. Prints what each reader came to, in the order of offsets:
//
//     { shown, kept, cut, size, errors }
//
// shown: all that its client handed out, piece by piece. kept: without the batches whose offset is not beyond the
// one before, as the client gives again what it had when no `control` followed.
import { readFile } from "node:fs/promises"
import { createServer, request } from "node:http"
import { DurableStream, stream } from "@durable-streams/client"

const { gateway: url, live, kind, pieces, offsets } = JSON.parse(await readFile(process.argv[2], "utf8"))
const gateway = new URL(url)
const AT_ONCE = 100
const runs = new Map() // by number: { left: bytes to the cut, size: bytes so far, cut }

const proxy = createServer((asked, answer) => {
  const { method, url, headers } = asked
  const [, number, path] = /^\/(\d+)(\/.*)$/.exec(url)
  const run = runs.get(Number(number))
  const onward = request({ host: gateway.hostname, port: gateway.port, method, path, headers }, (got) => {
    answer.writeHead(got.statusCode, got.headers)
    answer.flushHeaders()
    got.on("data", (data) => {
      if (run.cut === answer) return
      const last = run.cut === undefined && run.left < data.length ? data.subarray(0, run.left) : undefined
      run.left -= data.length
      run.size += (last ?? data).length
      if (!last) return answer.write(data)
      run.cut = answer
      if (got.headers["content-type"] === "text/event-stream") answer.end(last)
      else answer.write(last, () => answer.destroy())
      onward.destroy()
    })
    got.on("end", () => answer.end())
    got.on("error", () => answer.end())
  })
  onward.on("error", () => answer.destroy())
  answer.on("close", () => onward.destroy())
  asked.pipe(onward)
})
await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening))

// It would go over to long polls after three short connections.
const sseResilience = { minConnectionDuration: 0, maxShortConnections: 1e6, backoffBaseDelay: 1, backoffMaxDelay: 5, logWarnings: false }

const follow = async (number, path, ready) => {
  const seen = { shown: [], kept: [], errors: 0 }
  let offset = "-1"
  for (let over = false; !over; ) {
    const where = `http://127.0.0.1:${proxy.address().port}/${number}${path}`
    try {
      const reading = await stream({ url: where, offset, live, json: kind === "json", sseResilience })
      ready()
      const take = (batch) => {
        const data = kind === "json" ? batch.items.map((item) => JSON.stringify(item)) : [Buffer.from(batch.data).toString("base64")]
        const got = data.filter((one) => one !== "")
        const fresh = batch.offset !== offset
        seen.shown.push(...got)
        if (fresh) seen.kept.push(...got)
        offset = batch.offset
        return Boolean(batch.streamClosed)
      }
      await new Promise((ended, failed) => {
        const taken = (batch) => take(batch) && ((over = true), ended())
        if (kind === "json") reading.subscribeJson(taken)
        else reading.subscribeBytes(taken)
        reading.closed.then(() => over || setTimeout(() => failed(new Error("closed early")), 1000), failed)
      })
    } catch (error) {
      seen.errors++ // a body that broke off: on from the last offset
      if (seen.errors > 5) return { ...seen, failed: `${error?.stack ?? error}` }
    }
  }
  return seen
}

const results = []
for (let start = 0; start < offsets.length; start += AT_ONCE) {
  const path = `/v1/stream/cuts/${process.pid}/${live}/${kind}/${start}`
  const contentType = kind === "json" ? "application/json" : "application/octet-stream"
  const writer = await DurableStream.create({ url: `${gateway.origin}${path}`, contentType })
  const all = offsets.slice(start, start + AT_ONCE).map((left, n) => {
    const run = { left: left ?? Infinity, size: 0, cut: undefined }
    runs.set(start + n, run)
    let ready
    const begun = new Promise((resolve) => (ready = resolve))
    const end = follow(start + n, path, ready).then((seen) => ({ ...seen, cut: run.cut !== undefined, size: run.size }))
    return { begun, end }
  })
  await Promise.all(all.map(({ begun }) => begun))
  for (const piece of pieces) await writer.append(Buffer.from(piece, "base64"))
  await writer.close()
  results.push(...(await Promise.all(all.map(({ end }) => end))))
}
process.stdout.write(JSON.stringify(results), () => process.exit(0))
