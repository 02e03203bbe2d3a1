"""What runs in the sandbox for Node.js: shell scripts, and the program that explains why an installer failed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping

APPLICATION = "app"
"""Folder of the workload in the image, and in every step's output."""
INSTALL_SECONDS = 1200
BUILD_SECONDS = 900

SCRATCH = "/tmp/node"  # noqa: S108  (the sandbox's own tmpfs)
STORE = "/out/.store"
"""Where pnpm and yarn unpack packages: beside node_modules, so that files can be linked instead of copied."""
REGISTRY = "http://127.0.0.1:4873/"
"""What `RUN_PROGRAM` serves."""

ENVIRONMENT: Mapping[str, str] = {
    "ASTRO_TELEMETRY_DISABLED": "1",
    "CHROMEDRIVER_SKIP_DOWNLOAD": "true",
    "CYPRESS_INSTALL_BINARY": "0",
    "DISABLE_OPENCOLLECTIVE": "1",
    "DO_NOT_TRACK": "1",
    "ELECTRON_SKIP_BINARY_DOWNLOAD": "1",
    "GATSBY_TELEMETRY_DISABLED": "1",
    "GECKODRIVER_SKIP_DOWNLOAD": "true",
    "HUSKY": "0",
    "NEXT_TELEMETRY_DISABLED": "1",
    "NG_CLI_ANALYTICS": "false",
    "NUXT_TELEMETRY_DISABLED": "1",
    "PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1",
    "PUPPETEER_SKIP_DOWNLOAD": "true",
    "SENTRYCLI_SKIP_DOWNLOAD": "1",
    "TURBO_TELEMETRY_DISABLED": "1",
    "npm_config_audit": "false",
    "npm_config_cache": f"{SCRATCH}/npm",
    "npm_config_fund": "false",
    "npm_config_nodedir": "/usr/local",
    "npm_config_offline": "true",
    "npm_config_update_notifier": "false",
}
"""For every step. What tests need of browsers is not downloaded, as nothing can be; nothing is reported to anybody."""

RUN = "run.cjs"
RUN_PROGRAM = rb"""'use strict'
// Runs one of several commands; when all fail, says in one last line why, in words that help. For package managers
// that ask a registry it is one, on the sandbox's own loopback: it has the fetched files and knows nothing else.
const { spawn } = require('node:child_process')
const fs = require('node:fs')
const http = require('node:http')

const FILES = '/in/packages/registry'
const PORT = 4873
const LAST = 1 << 16

function run([program, ...words]) {
  return new Promise(resolve => {
    let said = ''
    const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] })
    const hear = data => {
      process.stderr.write(data)
      said = (said + data).slice(-LAST)
    }
    child.stdout.on('data', hear)
    child.stderr.on('data', hear)
    child.on('error', error => resolve([1, said + error.message]))
    child.on('close', status => resolve([status, said]))
  })
}

function serve() {
  const server = http.createServer((request, response) => {
    const path = decodeURIComponent(request.url.split('?')[0])
    const file = FILES + path
    if (request.method !== 'GET' || path.includes('..') || !path.endsWith('.tgz') || !fs.existsSync(file)) {
      response.writeHead(404)
      return response.end()
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': fs.statSync(file).size })
    fs.createReadStream(file).pipe(response)
  })
  return new Promise(resolve => server.listen(PORT, '127.0.0.1', resolve))
}

async function main() {
  if (fs.existsSync(FILES)) await serve()
  let first
  for (const words of JSON.parse(process.argv[2])) {
    const [status, said] = await run(words)
    if (status === 0) process.exit(0)
    first ??= said
  }
  const said = why(first)
  if (said) process.stderr.write(`\n${said}\n`)
  process.exit(1)
}

function why(first) {
  const value = name => (first.match(new RegExp(`^npm error ${name} (.*)$`, 'm')) || ['', ''])[1].trim()
  const matched = patterns => patterns.map(pattern => first.match(pattern)).find(Boolean)
  const script = value('command') || (matched([/^.*Command failed with exit code.*$/m, /ELIFECYCLE.*$/m]) || [''])[0]
  const place = matched([/^npm error path .*node_modules\/((?:@[^/\n]+\/)?[^/\n]+)$/m,
    /node_modules\/((?:@[^/\s]+\/)?[^/:\s]+): Command failed/,
    /node_modules\/((?:@[^/\s]+\/)?[^/:\s]+) \w*install: Failed/])
  if (place && script) {
    return `The install script of ${place[1]} failed (${script.slice(0, 80)}). There is no network while packages ` +
      'are installed. Remedy: take a release of it that brings along what it needs, or compiles from its own source.'
  }
  if (matched([/ENOTCACHED|EUSAGE|ETARGET|ERR_PNPM_(NO_OFFLINE|OUTDATED_LOCKFILE|LOCKFILE|FETCH_404)/,
    /lockfile needs to be updated|Request failed \S*404|Couldn't find any versions/])) {
    const detail = (matched([/(?:Missing|Invalid): .{1,120}/, /Couldn't find any versions for .{1,80}/]) || [''])[0]
    return `package.json and the lock file do not say the same${detail && ` (${detail})`}. Remedy: run the install ` +
      'of your package manager once and commit both files.'
  }
  if (matched([/EBADPLATFORM/])) {
    return 'A package does not run on Linux x64. Remedy: move it to optionalDependencies.'
  }
  if (matched([/ENOSPC/])) {
    return 'There is more than the sandbox has room for. Remedy: remove what the workload does not need.'
  }
  if (matched([/from Google Fonts|fonts\.g(oogleapis|static)\.com/])) {
    return 'The build fetches fonts from Google, and there is no network in it. Remedy: commit the font files and ' +
      'use next/font/local, or take the fonts from a package such as @fontsource.'
  }
  if (matched([/\b(ENOTFOUND|EAI_AGAIN|ENETUNREACH|ECONNREFUSED)\b/])) {
    return 'The build asks for something on the network, and there is none in it. Remedy: commit what it fetches, ' +
      'take it from a package, or fetch it when the program runs.'
  }
  return ''
}

main()
"""

SHIP = "ship.cjs"
SHIP_PROGRAM = rb"""'use strict'
// Moves the site that the build made to the folder that is served; says where it was looked for, if it is not there.
const fs = require('node:fs')
const path = require('node:path')

const [target, ...folders] = process.argv.slice(2)
const found = folders.find(folder => fs.existsSync(path.join(folder, 'index.html')))
if (found === undefined) {
  process.stderr.write(`\nThe build made no index.html in ${folders.slice(0, 6).join(', ')}. Remedy: let the build ` +
    'script write the site to dist/, or say in scripts.start what starts the server.\n')
  process.exit(1)
}
fs.renameSync(found, target)
"""


def run_lines(tries: list[list[str]]) -> str:
    """Return the line of shell that runs the first of several commands that succeeds."""
    return quoted(["node", f"/in/line/{RUN}", json.dumps(tries)])


def shell(lines: Iterable[str]) -> tuple[str, ...]:
    """Return a command that runs lines of shell, stopping at the first that fails."""
    return ("/bin/sh", "-eu", "-c", "\n".join(lines))


def quoted(words: Iterable[str]) -> str:
    """Return words as one line of shell."""
    return shlex.join(list(words))
