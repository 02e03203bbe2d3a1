/** The web server: one page, one answer in JSON, and what the platform asks for. */

import { randomInt } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import polka from 'polka'
import sirv from 'sirv'
import { palette } from './palette.js'

const files = sirv(fileURLToPath(new URL('../public', import.meta.url)), { etag: true })

function send(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' })
  response.end(JSON.stringify(value))
}

function guard(request, response, next) {
  response.setHeader('content-security-policy', "default-src 'self'; base-uri 'none'; form-action 'self'")
  response.setHeader('x-content-type-options', 'nosniff')
  next()
}

const app = polka()
  .use(guard, files)
  .get('/healthz', (_, response) => send(response, 200, { ok: true }))
  .get('/api/palette', (request, response) => {
    const asked = request.query.colour ?? '#' + randomInt(0x1000000).toString(16).padStart(6, '0')
    const scale = palette(asked)
    if (scale) send(response, 200, { colour: asked, scale })
    else send(response, 400, { error: 'Write a colour as #rrggbb or #rgb.' })
  })

const port = Number(process.env.PORT ?? 8080)
app.listen(port, () => console.log(`palette: listening on ${port}`))

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => app.server.close(() => process.exit(0)))
}
