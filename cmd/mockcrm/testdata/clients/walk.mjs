// What both walks share: the credentials that the test hands in, steps with names, and the admin endpoint.
import assert from 'node:assert/strict'

export { assert }

let input = ''
for await (const chunk of process.stdin) input += chunk
export const credentials = JSON.parse(input)

let failed = 0

// step runs one thing that the client should manage and prints one line about it.
export async function step(name, act) {
  try {
    await act()
    console.log(`ok ${name}`)
  } catch (error) {
    failed++
    console.log(`FAILED ${name}: ${String(error.stack ?? error).slice(0, 1500)}`)
  }
}

export function finish() {
  process.exit(failed === 0 ? 0 : 1)
}

// admin asks mockcrm's admin endpoint, as an administrator of the CRM would act.
export async function admin(method, path, body) {
  const reply = await fetch(credentials.admin + path, { method, body: body === undefined ? undefined : JSON.stringify(body) })
  const text = await reply.text()
  assert.ok(reply.ok, `${method} ${path}: ${reply.status} ${text}`)
  return text === '' ? {} : JSON.parse(text)
}

// refusal returns the error that act must end with.
export async function refusal(act) {
  try {
    await act()
  } catch (error) {
    return error
  }
  assert.fail('nothing was refused')
}
