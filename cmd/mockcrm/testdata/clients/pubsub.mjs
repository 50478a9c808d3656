// The Pub/Sub client of pozil, unchanged, listens to the mock org's changes.
import PubSubApiClient from 'salesforce-pubsub-api-client'
import { admin, assert, credentials, finish, step } from './walk.mjs'

const org = credentials.salesforce
const channel = '/data/OpportunityChangeEvent'
const silent = { debug() {}, info() {}, warn() {}, error() {} }

async function token() {
  const reply = await fetch(org.url + '/services/oauth2/token', {
    method: 'POST', body: new URLSearchParams({ grant_type: 'client_credentials', client_id: org.consumer_key, client_secret: org.client_secret })
  })
  return (await reply.json()).access_token
}

async function connected(accessToken) {
  const client = new PubSubApiClient({
    authType: 'user-supplied', accessToken, instanceUrl: 'https://acme.my.salesforce.com', organizationId: org.org_id,
    pubSubEndpoint: new URL(org.pubsub).host, rejectUnauthorizedSsl: false
  }, silent)
  await client.connect()
  return client
}

// listen collects what subscribe tells, and lets tests wait for so many.
function listen(client, subscribe) {
  const heard = { events: [], errors: [], waiting: [] }
  const look = () => { heard.waiting = heard.waiting.filter((w) => !w()) }
  subscribe((subscription, type, data) => {
    if (type === 'event') heard.events.push(data)
    if (type === 'error') heard.errors.push(data)
    look()
  })
  const until = (what, enough) => new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`waited for ${what}; ${heard.events.length} events, errors ${heard.errors}`)), 30000)
    heard.waiting.push(() => { if (enough()) { clearTimeout(timer); resolve() } return enough() })
    look()
  })
  heard.count = (n) => until(`${n} events`, () => heard.events.length >= n)
  heard.failure = () => until('an error', () => heard.errors.length > 0)
  return heard
}

const subscribed = async () => {
  while ((await admin('GET', '/salesforce/events')).streams === 0) await new Promise((resolve) => setTimeout(resolve, 20))
}

const client = await connected(await token())
const heard = listen(client, (tell) => client.subscribe(channel, tell, 100))
let id
let first
await step('hears a new deal and a changed stage', async () => {
  await subscribed()
  id = (await admin('POST', '/salesforce/opportunities', { fields: { Name: 'Ängström & Söhne', Amount: 1200.5 } })).id
  // A client asks for a schema that it does not know yet once per event, and hands an event out when its answer comes:
  // two new ones may change places. So the first is waited for, and later the earliest is looked for.
  await heard.count(1)
  await admin('POST', `/salesforce/opportunities/${id}/stage`, { stage: 'Closed Won' })
  await heard.count(2)
  const [made, moved] = heard.events.map((e) => e.payload)
  assert.equal(made.ChangeEventHeader.changeType, 'CREATE')
  assert.deepEqual(made.ChangeEventHeader.recordIds, [id])
  assert.equal(made.Name, 'Ängström & Söhne')
  assert.equal(made.Amount, 1200.5)
  assert.equal(moved.ChangeEventHeader.changeType, 'UPDATE')
  assert.equal(moved.StageName, 'Closed Won')
  assert.equal(moved.Name, null)
  assert.ok(moved.ChangeEventHeader.changedFields.includes('StageName'), String(moved.ChangeEventHeader.changedFields))
  assert.ok(!moved.ChangeEventHeader.changedFields.includes('Name'))
  assert.ok(heard.events[1].replayId > heard.events[0].replayId)
  first = heard.events[0].replayId
})
await step('replays from an event on, and from the earliest', async () => {
  const after = await connected(await token())
  const replayed = listen(after, (tell) => after.subscribeFromReplayId(channel, tell, 100, first))
  await replayed.count(1)
  assert.equal(replayed.events[0].payload.StageName, 'Closed Won')
  const all = await connected(await token())
  const early = listen(all, (tell) => all.subscribeFromEarliestEvent(channel, tell, 100))
  await early.count(2)
  assert.equal(Math.min(...early.events.map((e) => e.replayId)), first)
  after.close()
  all.close()
})
await step('is refused a place that is too old', async () => {
  await admin('POST', '/salesforce/events', { expire: true })
  const late = await connected(await token())
  const refused = listen(late, (tell) => late.subscribeFromReplayId(channel, tell, 100, first))
  await refused.failure()
  assert.match(String(refused.errors[0]), /INVALID_ARGUMENT|replay/i)
  late.close()
})
await step('hears gaps', async () => {
  await admin('POST', '/salesforce/events', { gap: 1 })
  await admin('PATCH', `/salesforce/records/${id}`, { fields: { Amount: 7 } })
  await admin('POST', '/salesforce/events', { overflow: true })
  await heard.count(4)
  assert.deepEqual(heard.events.slice(2).map((e) => e.payload.ChangeEventHeader.changeType), ['GAP_UPDATE', 'GAP_OVERFLOW'])
})
await step('is refused without a session', async () => {
  const stranger = await connected('00D-nobody')
  const refused = listen(stranger, (tell) => stranger.subscribe(channel, tell, 100))
  await refused.failure()
  assert.match(String(refused.errors[0]), /UNAUTHENTICATED|Authentication/i)
  stranger.close()
})
client.close()
finish()
