package main

const manual = `Usage: mockcrm [flags]

Mockcrm runs a Salesforce org and a HubSpot portal that live in memory and speak
the wire protocol of the real ones, so that a client can be pointed at them
unchanged: plain HTTP instead of HTTPS is the only difference. It listens on
loopback addresses only, prints the addresses and credentials as one JSON object
when it is ready, and ends on SIGINT or SIGTERM. What was in memory is gone then.

A first walk:

  mockcrm > credentials.json &
  curl -s 127.0.0.1:8203/salesforce/opportunities -d '{"fields":{"Name":"Acme","Amount":1200}}'
  curl -s 127.0.0.1:8203/salesforce/opportunities/006.../stage -d '{"stage":"Closed Won"}'
  curl -s 127.0.0.1:8203/salesforce/records/006...
  curl -s 127.0.0.1:8203/salesforce/records/006.../files
  curl -s 127.0.0.1:8203/hubspot/deals -d '{"properties":{"dealname":"Acme","amount":"1200"}}'
  curl -s 127.0.0.1:8203/hubspot/deals/789.../stage -d '{"stage":"closedwon"}'
  curl -s 127.0.0.1:8203/hubspot/faults -d '{"kind":"upload","effect":"reset_committed","times":1}'

Salesforce clients log in at the Salesforce address: JWT bearer (issuer: the
consumer key, subject: the user name, audience: the address or
https://login.salesforce.com, signed with the printed private key) or client
credentials. Changes of opportunities are told over the Pub/Sub API (gRPC) on the
channel /data/OpportunityChangeEvent. HubSpot clients send the token, or refresh the OAuth app's token at
/oauth/{version}/token; paths are served in the date-based form (2026-03, 2026-09)
and in the numeric one (v3, v4, oauth/v1).

The admin endpoint speaks JSON and needs no password. Errors have a status of 4xx
and {"error": "..."}. {id} is a record's ID.

  GET    /                                     this manual
  GET    /credentials                          what was printed at the start

  POST   /salesforce/opportunities             {"fields":{},"lineItems":[{}],"contactRoles":[{}]} -> {"id"}
                                               a line item may hold {"Product2":{}}, a role {"Contact":{}}
  POST   /salesforce/opportunities/{id}/stage  {"stage":"Closed Won"}
  POST   /salesforce/objects/{object}          {"fields":{}} -> {"id"}: any object, for example Account
  GET    /salesforce/objects/{object}          {"ids":[]}
  GET    /salesforce/records/{id}              the record's fields
  PATCH  /salesforce/records/{id}              {"fields":{}}, as a user would change them
  DELETE /salesforce/records/{id}
  GET    /salesforce/records/{id}/files        the files on the record, with all versions
  GET    /salesforce/records/{id}/files/{v}    the content of version v
  POST   /salesforce/records/{id}/files?name=N the body becomes a file, as if a user had added it
  POST   /salesforce/sessions/kill             every session ends
  PUT    /salesforce/state                     any of {"usage":14000,"commitDelay":"5s","freeze":"2026-11-20T10:00:00Z",
                                               "hide":["Opportunity.Amount"],"show":[],"lock":["006..."],"unlock":[],
                                               "track":["Order.Status"],"untrack":[],"permit":["EditActivatedOrders"]}
                                               (the history of a field is kept from "track" on)
                                               ("freeze":"" lets the clock go on)

  GET    /salesforce/events                    {"events":[],"streams":1}: headers of change events, and open subscriptions
  POST   /salesforce/events                    any of {"lose":1,"gap":1,"overflow":true,"repeat":1,"expire":true,"cut":true,
                                               "off":true,"on":true}: the next transactions publish nothing, or gaps; the
                                               newest event comes again; replay IDs get too old; streams end

  PUT    /salesforce/outbound                  {"endpoint":"http://127.0.0.1:8443/webhooks/acme/salesforce-outbound","stage":"Closed Won"}:
                                               an outbound message, posted until it is answered with an Ack
  GET    /salesforce/outbound                  {"attempts":[]}: what was posted
  PUT    /hubspot/webhooks                     {"targetUrl":"","secret":"","properties":["dealstage"],"objects":false,"double":false}:
                                               an app's webhooks, signed, posted until they are answered with 2xx
  GET    /hubspot/webhooks                     {"deliveries":[]}: what was posted

  POST   /hubspot/deals                        {"properties":{},"lineItems":[{}],"companies":[{}],
                                               "contacts":[{"properties":{},"label":"Signer"}],"count":1} -> {"ids"}
  GET    /hubspot/deals                        {"ids":[]}
  POST   /hubspot/deals/stage                  {"ids":[],"stage":"closedwon"}: all with the same time stamp
  GET    /hubspot/deals/{id}                   properties and their history, oldest first
  PATCH  /hubspot/deals/{id}                   {"properties":{}}, as a user would change them
  DELETE /hubspot/deals/{id}
  POST   /hubspot/deals/{id}/stage             {"stage":"closedwon"}
  POST   /hubspot/deals/{id}/merge             {"with":"789..."} -> {"id"}: the merged deal has a new ID
  GET    /hubspot/deals/{id}/notes
  GET    /hubspot/deals/{id}/files             the files that the deal's notes carry
  GET    /hubspot/deals/{id}/files/{file}      the content of one of them
  POST   /hubspot/deals/{id}/files?name=N      the body becomes a file with a note, as if a user had added it
  POST   /hubspot/deals/{id}/index             {"hold":true}: search does not see the deal's changes until false
  POST   /hubspot/deals/{id}/history           {"property":"dealstage","spoilt":true}: a time stamp that nobody can read
  POST   /hubspot/owners                       {"email":"","firstName":"","lastName":""} -> {"id"}
  POST   /hubspot/rules                        {"object":"deals","property":"dealstage","values":["closedwon"],"required":["amount"]}
                                               a conditional required property; 2026-09 enforces it
  POST   /hubspot/tokens/expire                every OAuth access token expires
  POST   /hubspot/tokens/revoke                as if the OAuth app had been uninstalled
  PUT    /hubspot/index                        {"min":"0s","max":"5s"}: the delay of search; max > min lets rows overtake
  PUT    /hubspot/limits                       {"tenSecondly":190,"daily":625000,"searchSecondly":5,"associations":150}
                                               0 is HubSpot's own figure, -1 turns a limit off

  For both, {crm} being salesforce or hubspot:
  GET    /{crm}/faults                         the faults that are set
  POST   /{crm}/faults                         {"kind":"patch","path":"/deals/","effect":"423","times":2,"skip":1,"delay":"1s"} -> {"id"}
                                               no kind: every call; no times: until it is cleared
  DELETE /{crm}/faults                         clears all; /{crm}/faults/{n} clears one
  GET    /{crm}/requests                       {"counts":{},"requests":[]}: calls by kind, and the newest of them
  DELETE /{crm}/requests                       starts counting again

  A fault with an unknown kind or effect is refused with the names that exist.

Flags:
`
