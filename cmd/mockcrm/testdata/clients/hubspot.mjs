// @hubspot/api-client, unchanged, does with the mock portal what dealseal and its users do with a real one. An argument names
// another version of it.
import { admin, assert, credentials, finish, refusal, step } from './walk.mjs'

const { Client, Signature } = await import(process.argv[2] ?? '@hubspot/api-client')
const portal = credentials.hubspot
const client = new Client({ accessToken: portal.token, basePath: portal.url, numberOfApiCallRetries: 0 })
const { deals, contacts, companies, lineItems, objects, associations, pipelines, properties, owners } = client.crm
let id
let fileId

await step('asks for the account', async () => {
  const reply = await client.apiRequest({ path: '/account-info/v3/details' })
  assert.equal((await reply.json()).portalId, portal.portal_id)
})
await step('creates, reads and updates a deal', async () => {
  const made = await deals.basicApi.create({ properties: { dealname: "Zażółć & O'Brien", amount: '1200.50', dealstage: 'appointmentscheduled' }, associations: [] })
  id = made.id
  assert.ok(made.createdAt instanceof Date && made.archived === false)
  await deals.basicApi.update(id, { properties: { dealstage: 'closedwon' } })
  const read = await deals.basicApi.getById(id, ['dealname', 'amount', 'dealstage'])
  assert.deepEqual([read.properties.dealname, read.properties.amount, read.properties.dealstage], ["Zażółć & O'Brien", '1200.50', 'closedwon'])
})
await step('reads the history of a stage', async () => {
  const read = await deals.basicApi.getById(id, undefined, ['dealstage'])
  const history = read.propertiesWithHistory.dealstage
  assert.deepEqual(history.map((h) => h.value), ['closedwon', 'appointmentscheduled'])
  assert.ok(history[0].timestamp instanceof Date && !Number.isNaN(history[0].timestamp.getTime()))
})
await step('reads the history of many deals at once', async () => {
  const { ids } = await admin('POST', '/hubspot/deals', { properties: { dealname: 'Many' }, count: 30 })
  await admin('POST', '/hubspot/deals/stage', { ids, stage: 'contractsent' })
  const { results } = await deals.batchApi.read({ inputs: ids.map((i) => ({ id: i })), properties: ['dealstage', 'pipeline'], propertiesWithHistory: ['dealstage'] })
  assert.equal(results.length, 30)
  assert.ok(results.every((r) => r.propertiesWithHistory.dealstage[0].value === 'contractsent'))
})
await step('searches page by page', async () => {
  await admin('PUT', '/hubspot/index', { min: '0s', max: '0s' })
  const seen = new Set()
  let after
  do {
    const page = await deals.searchApi.doSearch({
      filterGroups: [{ filters: [{ propertyName: 'dealname', operator: 'EQ', value: 'Many' }] }],
      sorts: ['hs_object_id'], properties: ['dealname'], limit: 10, after,
    })
    page.results.forEach((r) => seen.add(r.id))
    assert.equal(page.total, 30)
    after = page.paging?.next?.after
  } while (after)
  assert.equal(seen.size, 30)
})
await step('searches by what was modified, oldest first', async () => {
  const page = await deals.searchApi.doSearch({
    filterGroups: [{ filters: [{ propertyName: 'hs_lastmodifieddate', operator: 'GTE', value: String(Date.now() - 3600_000) }] }],
    sorts: [{ propertyName: 'hs_lastmodifieddate', direction: 'ASCENDING' }], properties: ['hs_lastmodifieddate'], limit: 100,
  })
  const times = page.results.map((r) => Date.parse(r.properties.hs_lastmodifieddate))
  assert.ok(times.length > 30)
  assert.deepEqual(times, [...times].sort((a, b) => a - b))
})
await step('lists all deals', async () => {
  const all = await deals.getAll(10)
  assert.ok(all.length >= 31 && all.some((d) => d.id === id))
})
await step('joins contacts, companies and line items with a deal', async () => {
  const contact = await contacts.basicApi.create({ properties: { email: 'emmy@example.com', lastname: 'Noether' }, associations: [] })
  const company = await companies.basicApi.create({ properties: { name: 'Acme' }, associations: [] })
  const line = await lineItems.basicApi.create({ properties: { name: 'Seat', quantity: '3', price: '10.50' }, associations: [] })
  for (const [type, other] of [['contacts', contact], ['companies', company], ['line_items', line]]) {
    await associations.v4.basicApi.createDefault('deals', id, type, other.id)
    const { results } = await associations.v4.basicApi.getPage('deals', id, type)
    assert.deepEqual(results.map((r) => String(r.toObjectId)), [other.id])
    assert.ok(results[0].associationTypes[0].typeId > 0)
  }
  const both = await associations.v4.batchApi.getPage('deals', 'contacts', { inputs: [{ id }] })
  assert.equal(String(both.results[0].to[0].toObjectId), contact.id)
  const read = await deals.basicApi.getById(id, ['dealname'], undefined, ['line_items'])
  assert.equal(Object.values(read.associations)[0].results[0].id, line.id)
})
await step('uploads a private file, reads it and gets a link that ends', async () => {
  const body = '%PDF-1.7 contract'
  const made = await client.files.filesApi.upload({ data: Buffer.from(body), name: 'contract.pdf' }, undefined, '/dealseal', 'contract', undefined,
    JSON.stringify({ access: 'PRIVATE', overwrite: false, duplicateValidationStrategy: 'NONE' }))
  fileId = made.id
  const read = await client.files.filesApi.getById(fileId)
  assert.equal(read.size, body.length)
  assert.equal(read.access, 'PRIVATE')
  const { url } = await client.files.filesApi.getSignedUrl(fileId)
  assert.equal(await (await fetch(url)).text(), body)
})
await step('puts the file on the deal with a note', async () => {
  const note = await objects.notes.basicApi.create({
    properties: { hs_timestamp: new Date().toISOString(), hs_note_body: 'Sealed', hs_attachment_ids: fileId },
    associations: [{ to: { id }, types: [{ associationCategory: 'HUBSPOT_DEFINED', associationTypeId: 214 }] }],
  })
  const { results } = await associations.v4.basicApi.getPage('deals', id, 'notes')
  assert.deepEqual(results.map((r) => String(r.toObjectId)), [note.id])
  const { results: notes } = await objects.notes.batchApi.read({ inputs: [{ id: note.id }], properties: ['hs_attachment_ids', 'hs_note_body'], propertiesWithHistory: [] })
  assert.equal(notes[0].properties.hs_attachment_ids, fileId)
})
await step('reads pipelines, stages and owners', async () => {
  const { results } = await pipelines.pipelinesApi.getAll('deals')
  assert.ok(results.some((p) => p.stages.some((s) => s.id === 'closedwon' && s.label)))
  const owner = await admin('POST', '/hubspot/owners', { email: 'ada@example.com', firstName: 'Ada', lastName: 'L' })
  assert.equal((await owners.ownersApi.getById(Number(owner.id))).email, 'ada@example.com')
})
await step('makes a property, lists it and writes it', async () => {
  await properties.coreApi.create('deals', { name: 'contract_note', label: 'Contract note', type: 'string', fieldType: 'text', groupName: 'dealinformation' })
  const { results } = await properties.coreApi.getAll('deals')
  assert.ok(results.some((p) => p.name === 'contract_note' && p.type === 'string'))
  await deals.basicApi.update(id, { properties: { contract_note: 'kept' } })
  assert.equal((await deals.basicApi.getById(id, ['contract_note'])).properties.contract_note, 'kept')
})
await step('merges two deals', async () => {
  const { ids } = await admin('POST', '/hubspot/deals', { properties: { dealname: 'Twin' }, count: 2 })
  const reply = await client.apiRequest({ method: 'POST', path: '/crm/v3/objects/deals/merge', body: { primaryObjectId: ids[0], objectIdToMerge: ids[1] } })
  const merged = await reply.json()
  assert.ok(reply.status === 200 && !ids.includes(merged.id), JSON.stringify(merged))
  const read = await deals.basicApi.getById(ids[1], ['hs_merged_object_ids'])
  assert.equal(read.id, merged.id)
})
for (const [name, status, category, act] of [
  ['a deal that is not there', 404, 'OBJECT_NOT_FOUND', () => deals.basicApi.getById('999999999')],
  ['an unknown property', 400, 'VALIDATION_ERROR', () => deals.basicApi.update(id, { properties: { nonsense: 'x' } })],
  ['a stage that is not there', 400, 'VALIDATION_ERROR', () => deals.basicApi.update(id, { properties: { dealstage: 'nonsense' } })],
  ['a search that asks for too much', 400, 'VALIDATION_ERROR', () => deals.searchApi.doSearch({ filterGroups: [], limit: 201 })],
  ['a wrong token', 401, 'INVALID_AUTHENTICATION', () => new Client({ accessToken: 'wrong', basePath: portal.url, numberOfApiCallRetries: 0 }).crm.deals.basicApi.getById(id)],
]) {
  await step(`is told of ${name}`, async () => {
    const error = await refusal(act)
    assert.equal(error.code, status)
    assert.equal(error.body.category, category)
    assert.ok(error.body.correlationId && error.body.message)
  })
}
await step('is told how fast it may be, and to slow down', async () => {
  const { headers } = await client.apiRequest({ path: '/crm/v3/objects/deals' })
  assert.ok(Number(headers.get('x-hubspot-ratelimit-max')) > 0, [...headers.keys()].join())
  await admin('POST', '/hubspot/faults', { kind: 'search', effect: '429_ten_secondly', times: 1 })
  const error = await refusal(() => deals.searchApi.doSearch({ filterGroups: [], limit: 1 }))
  assert.equal(error.code, 429)
  assert.equal(error.body.errorType, 'RATE_LIMIT')
})
await step('tries again by itself where HubSpot is out of order', async () => {
  await admin('POST', '/hubspot/faults', { effect: '502', times: 1 })
  const patient = new Client({ accessToken: portal.token, basePath: portal.url, numberOfApiCallRetries: 3 })
  assert.equal((await patient.crm.deals.basicApi.getById(id)).id, id)
})
await step('refreshes an OAuth token, and is told when it has ended', async () => {
  const refresh = () => client.oauth.tokensApi.create('refresh_token', undefined, undefined, portal.client_id, portal.client_secret, portal.refresh_token)
  const token = await refresh()
  assert.ok(token.expiresIn > 0 && token.accessToken)
  const other = new Client({ accessToken: token.accessToken, basePath: portal.url, numberOfApiCallRetries: 0 })
  assert.equal((await other.crm.deals.basicApi.getById(id)).id, id)
  await admin('POST', '/hubspot/tokens/expire')
  const error = await refusal(() => other.crm.deals.basicApi.getById(id))
  assert.equal(error.code, 401)
  assert.equal(error.body.category, 'EXPIRED_AUTHENTICATION')
})
await step('signs what our verifier takes for signed', async () => {
  for (const v of credentials.vectors) {
    const signed = (version, url) => Signature.getSignature(v.method, version, { clientSecret: v.secret, url, requestBody: v.body, timestamp: v.ts })
    assert.equal(signed('v3', v.uri), v.v3, v.id)
    assert.equal(signed('v2', v.uri), v.v2, v.id)
  }
  assert.equal(credentials.vectors.length, 6)
})
await step('takes signatures that our verifier refuses', async () => { // else there were no reason for one of our own
  const v = credentials.vectors[0]
  const timed = (ts) => ({ method: v.method, signatureVersion: 'v3', clientSecret: v.secret, url: v.uri, requestBody: v.body, timestamp: ts,
    signature: Signature.getSignature(v.method, 'v3', { clientSecret: v.secret, url: v.uri, requestBody: v.body, timestamp: ts }) })
  assert.equal(Signature.isValid(timed(Date.now() + 3600_000)), true) // from the future
  assert.equal(Signature.isValid(timed('now')), true) // a time that is none
})
await step('deletes a deal', async () => {
  await deals.basicApi.archive(id)
  assert.equal((await refusal(() => deals.basicApi.getById(id))).code, 404)
})
finish()
