// Jsforce, unchanged, does with the mock org what dealseal and its users do with a real one.
import { createSign } from 'node:crypto'
import { text } from 'node:stream/consumers'
import jsforce from 'jsforce'
import { admin, assert, credentials, finish, refusal, step } from './walk.mjs'

const org = credentials.salesforce
const version = '66.0'
const base64url = (v) => Buffer.from(typeof v === 'string' ? v : JSON.stringify(v)).toString('base64url')

function assertion() {
  const unsigned = base64url({ alg: 'RS256' }) + '.' +
    base64url({ iss: org.consumer_key, sub: org.username, aud: org.url, exp: Math.floor(Date.now() / 1000) + 180 })
  return unsigned + '.' + createSign('RSA-SHA256').update(unsigned).sign(org.private_key, 'base64url')
}

async function login(params) {
  const conn = new jsforce.Connection({ version, instanceUrl: org.url, oauth2: { loginUrl: org.url, clientId: org.consumer_key, clientSecret: org.client_secret } })
  await conn.authorize(params)
  return conn
}

const jwt = () => login({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: assertion() })
let conn
let id

await step('logs in with a JWT', async () => {
  conn = await jwt()
  assert.equal((await conn.identity()).organization_id, org.org_id)
})
await step('logs in with client credentials', async () => {
  const other = await login({ grant_type: 'client_credentials' })
  assert.equal((await other.identity()).organization_id, org.org_id)
})
await step('is told why a login is refused', async () => {
  const error = await refusal(() => login({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: assertion() + 'x' }))
  assert.match(`${error.name} ${error.message}`, /invalid_grant|invalid_client|invalid assertion/i)
})
await step('describes the org and the Opportunity', async () => {
  const names = (await conn.describeGlobal()).sobjects.map((o) => o.name)
  assert.ok(names.includes('Opportunity') && names.includes('ContentVersion'), names.join())
  const described = await conn.sobject('Opportunity').describe()
  const stage = described.fields.find((f) => f.name === 'StageName')
  assert.ok(stage.picklistValues.some((v) => v.value === 'Closed Won'))
  assert.equal(described.fields.find((f) => f.name === 'DealSeal_Transaction_ID__c').updateable, true)
})
await step('creates, reads and updates a record', async () => {
  const account = await conn.sobject('Account').create({ Name: "Zażółć & O'Brien" })
  const made = await conn.sobject('Opportunity').create({ Name: 'Acme renewal', StageName: 'Prospecting', CloseDate: '2026-12-31', Amount: 1200.5, AccountId: account.id })
  assert.equal(made.success, true)
  id = made.id
  await conn.sobject('Opportunity').update({ Id: id, StageName: 'Closed Won' })
  const read = await conn.sobject('Opportunity').retrieve(id)
  assert.equal(read.StageName, 'Closed Won')
  assert.equal(read.Amount, 1200.5)
})
await step('queries parents and children', async () => {
  const made = await admin('POST', '/salesforce/opportunities', {
    fields: { Name: 'With lines', Amount: 31.5 }, lineItems: [{ Quantity: 3, UnitPrice: 10.5, Product2: { Name: 'Seat' } }],
    contactRoles: [{ Role: 'Decision Maker', IsPrimary: true, Contact: { LastName: 'Noether' } }],
  })
  const { records, done, totalSize } = await conn.query(
    'SELECT Id, Name, Account.Name, (SELECT Product2.Name, Quantity, UnitPrice FROM OpportunityLineItems), ' +
    `(SELECT Contact.LastName, IsPrimary FROM OpportunityContactRoles) FROM Opportunity WHERE Id = '${made.id}'`)
  assert.equal(done, true)
  assert.equal(totalSize, 1)
  assert.equal(records[0].OpportunityLineItems.records[0].Product2.Name, 'Seat')
  assert.equal(records[0].OpportunityContactRoles.records[0].Contact.LastName, 'Noether')
})
await step('queries with its own query builder', async () => {
  const found = await conn.sobject('Opportunity').find({ Id: id }, 'Id, Name, Account.Name').limit(1)
  assert.equal(found[0].Account.Name, "Zażółć & O'Brien")
})
await step('reads the stage history over several pages', async () => {
  for (let i = 0; i < 120; i++) {
    await admin('POST', `/salesforce/opportunities/${id}/stage`, { stage: 'Prospecting' })
    await admin('POST', `/salesforce/opportunities/${id}/stage`, { stage: 'Closed Won' })
  }
  const { records: rows } = await conn.query(`SELECT Id, StageName, CreatedDate FROM OpportunityHistory WHERE OpportunityId = '${id}' ORDER BY CreatedDate, Id`,
    { autoFetch: true, maxFetch: 1000, headers: { 'Sforce-Query-Options': 'batchSize=200' } })
  assert.ok(rows.length > 240, `${rows.length} rows`)
  assert.equal(new Set(rows.map((r) => r.Id)).size, rows.length)
})
await step('goes on with queryMore', async () => {
  let page = await conn.query('SELECT Id FROM OpportunityHistory', { autoFetch: false, headers: { 'Sforce-Query-Options': 'batchSize=200' } })
  assert.equal(page.done, false)
  const total = page.totalSize
  let n = page.records.length
  while (!page.done) {
    page = await conn.queryMore(page.nextRecordsUrl)
    n += page.records.length
  }
  assert.equal(n, total)
})
await step('uploads a file to a record, finds it there and downloads it', async () => {
  const body = '%PDF-1.7 contract'
  const made = await conn.sobject('ContentVersion').create({
    Title: 'Contract', PathOnClient: 'contract.pdf', VersionData: Buffer.from(body).toString('base64'), FirstPublishLocationId: id,
  })
  const { records } = await conn.query(`SELECT ContentDocumentId, Checksum, ContentSize FROM ContentVersion WHERE Id = '${made.id}'`)
  assert.equal(records[0].ContentSize, body.length)
  const links = await conn.query(`SELECT ContentDocumentId FROM ContentDocumentLink WHERE LinkedEntityId = '${id}'`)
  assert.ok(links.records.some((l) => l.ContentDocumentId === records[0].ContentDocumentId))
  assert.equal(await text(conn.sobject('ContentVersion').record(made.id).blob('VersionData')), body)
})
await step('writes only if nobody else has', async () => {
  const error = await refusal(() => conn.request({
    method: 'PATCH', url: `/services/data/v${version}/sobjects/Opportunity/${id}`, body: JSON.stringify({ NextStep: 'x' }),
    headers: { 'content-type': 'application/json', 'If-Unmodified-Since': 'Tue, 01 Jan 2019 00:00:00 GMT' },
  }))
  assert.equal(error.errorCode, 'ENTITY_FAILED_IFLASTMODIFIED_ON_UPDATE_CHECK')
})
await step('lists what was changed', async () => {
  const now = Date.now()
  const { ids } = await conn.sobject('Opportunity').updated(new Date(now - 3600_000), new Date(now + 60_000))
  assert.ok(ids.includes(id))
})
await step('asks for the limits', async () => {
  const limits = await conn.limits()
  assert.ok(limits.DailyApiRequests.Max > 0)
  assert.ok(conn.limitInfo.apiUsage.limit > 0)
})
for (const [name, code, act] of [
  ['an unknown field', 'INVALID_FIELD', () => conn.query('SELECT Nonsense__c FROM Opportunity')],
  ['an unknown object', 'INVALID_TYPE', () => conn.query('SELECT Id FROM Nonsense__c')],
  ['a broken query', 'MALFORMED_QUERY', () => conn.query('SELECT Id FROM Opportunity WHERE')],
  ['a record that is not there', 'NOT_FOUND', () => conn.sobject('Opportunity').retrieve('006000000000000AAA')],
  ['a value too long', 'STRING_TOO_LONG', () => conn.sobject('Opportunity').update({ Id: id, DealSeal_Transaction_ID__c: 'x'.repeat(300) })],
  ['a missing required field', 'REQUIRED_FIELD_MISSING', () => conn.sobject('Opportunity').create({ Name: 'No stage' })],
]) {
  await step(`is told of ${name}`, async () => assert.equal((await refusal(act)).errorCode, code))
}
await step('is told of a locked row, and succeeds after it', async () => {
  await admin('PUT', '/salesforce/state', { lock: [id] })
  const error = await refusal(() => conn.sobject('Opportunity').update({ Id: id, NextStep: 'x' }))
  assert.ok(['UNABLE_TO_LOCK_ROW', 'ENTITY_IS_LOCKED'].includes(error.errorCode), error.errorCode)
  await admin('PUT', '/salesforce/state', { unlock: [id] })
  await conn.sobject('Opportunity').update({ Id: id, NextStep: 'x' })
})
await step('is told that the allowance is used up', async () => {
  const limits = await conn.limits()
  await admin('PUT', '/salesforce/state', { usage: limits.DailyApiRequests.Max })
  assert.equal((await refusal(() => conn.query('SELECT Id FROM Opportunity LIMIT 1'))).errorCode, 'REQUEST_LIMIT_EXCEEDED')
  await admin('PUT', '/salesforce/state', { usage: 1 })
  await conn.query('SELECT Id FROM Opportunity LIMIT 1')
})
await step('notices an ended session and logs in again', async () => {
  let refreshed = 0
  const lasting = new jsforce.Connection({
    version, instanceUrl: org.url, accessToken: conn.accessToken,
    refreshFn: async (_, callback) => {
      refreshed++
      callback(null, (await jwt()).accessToken)
    },
  })
  await lasting.query('SELECT Id FROM Opportunity LIMIT 1')
  const plain = new jsforce.Connection({ version, instanceUrl: org.url, accessToken: conn.accessToken })
  await admin('POST', '/salesforce/sessions/kill')
  assert.equal((await refusal(() => plain.query('SELECT Id FROM Opportunity LIMIT 1'))).errorCode, 'INVALID_SESSION_ID')
  await lasting.query('SELECT Id FROM Opportunity LIMIT 1')
  assert.equal(refreshed, 1)
  conn = lasting
})
await step('deletes a record', async () => {
  await conn.sobject('Opportunity').destroy(id)
  const error = await refusal(() => conn.sobject('Opportunity').retrieve(id))
  assert.ok(['NOT_FOUND', 'ENTITY_IS_DELETED'].includes(error.errorCode), error.errorCode)
})
finish()
