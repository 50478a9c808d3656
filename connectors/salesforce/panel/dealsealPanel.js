import { LightningElement, api, wire } from 'lwc';
import { getRecord, notifyRecordUpdateAvailable } from 'lightning/uiRecordApi';
import { CONTRACTS, PAGE } from './fields';

const HIDDEN = 'not visible to you';

const LOOKS = {
    signed: 'slds-theme_success',
    refused: 'slds-theme_error',
    failed: 'slds-theme_error',
    action_required: 'slds-theme_warning',
    held: 'slds-theme_warning'
};

// What dealseal writes reaches an open page only when somebody looks. A contract that is being made is looked for now and then,
// for ten minutes; one that waits for people is not.
const EVERY = 15000;
const MOST = 40;

// Names are those of one module: the wire compares them by identity.
const FIELDS = Object.fromEntries(
    Object.entries(CONTRACTS).map(([object, contracts]) => [
        object,
        [...new Set(contracts.flatMap((its) => Object.values(its.fields)))].map((name) => `${object}.${name}`)
    ])
);

export default class DealsealPanel extends LightningElement {
    @api recordId;
    @api objectApiName;

    loading = true;
    trouble = '';
    news = '';
    contracts = [];
    looks = 0;
    timer;

    get fields() {
        return FIELDS[this.objectApiName];
    }

    connectedCallback() {
        if (this.objectApiName && !this.fields) {
            this.loading = false;
            this.trouble = `dealseal seals nothing for ${this.objectApiName} here.`;
        }
    }

    disconnectedCallback() {
        this.stop();
    }

    // Optional, so that a field that somebody may not see costs them only that field.
    @wire(getRecord, { recordId: '$recordId', optionalFields: '$fields' })
    take({ data, error }) {
        if (error) {
            this.loading = false;
            this.trouble = `The record cannot be read: ${error.body?.message ?? 'Salesforce does not say why'}.`;
        } else if (data) {
            this.trouble = '';
            this.show(data.fields);
        }
    }

    show(fields) {
        const several = CONTRACTS[this.objectApiName].length > 1;
        const contracts = CONTRACTS[this.objectApiName].map((its, i) => ({
            ...contractOf(its, fields),
            key: `contract ${i}`,
            several,
            title: several ? `Contract ${i + 1}` : 'Contract'
        }));
        const changed = contracts.filter((c, i) => !this.loading && c.status !== this.contracts[i]?.status);
        if (changed.length > 0) {
            this.news = changed.map((c) => `${c.title}: ${c.status || 'none'}`).join('. ');
        }
        this.loading = false;
        this.contracts = contracts;
        this.watch();
    }

    lookAgain() {
        this.looks = 0;
        this.watch();
        notifyRecordUpdateAvailable([{ recordId: this.recordId }]);
    }

    watch() {
        if (!this.contracts.some((c) => c.queued)) {
            this.stop();
            this.looks = 0;
        } else if (!this.timer && this.looks < MOST) {
            // eslint-disable-next-line @lwc/lwc/no-async-operation -- it ends after ten minutes, and with the page
            this.timer = setInterval(() => this.glance(), EVERY);
        }
    }

    glance() {
        if (document.hidden) {
            return;
        }
        this.looks += 1;
        if (this.looks >= MOST) {
            this.stop();
        }
        notifyRecordUpdateAvailable([{ recordId: this.recordId }]);
    }

    stop() {
        clearInterval(this.timer);
        this.timer = undefined;
    }
}

// contractOf is what the record's fields say of one contract, for the template.
function contractOf({ fields: names, words }, fields) {
    const value = (role) => (names[role] && fields[names[role]]?.value) || undefined;
    const hidden = (role) => Boolean(names[role]) && !(names[role] in fields);
    const said = auditOf(value('audit'), value('transaction_id'));
    const transaction = value('transaction_id') ?? said.tx;
    const word = value('status') ?? Object.keys(words).find((w) => words[w] === said.status);
    const status = said.status ?? words[word];
    const none = !word && !transaction && !Object.keys(names).some(hidden);

    const rows = [];
    const row = (role, label, text, more) => {
        if (text) {
            rows.push({ label, text, ...more });
        } else if (hidden(role)) {
            rows.push({ label, text: HIDDEN });
        }
    };
    row('transaction_id', 'Transaction', transaction);
    row('audit', 'Level', said.level);
    const sealed = value('signed_at') ?? said.signed_at;
    row('signed_at', 'Sealed at', sealed, moment(sealed));
    row('audit', 'Reason', said.reason);
    row('drift', 'Differs', value('drift'));
    const due = value('follow_up');
    row('follow_up', 'No outcome since', due, moment(due));
    const url = value('url');
    row('url', 'Document', isHTTPS(url) ? 'Sealed document' : url, { link: isHTTPS(url) ? url : undefined });
    if (PAGE && transaction) {
        rows.push({ label: 'Details', text: 'Status page', link: `${PAGE}/deals/${encodeURIComponent(transaction)}` });
    }
    return {
        none,
        rows,
        queued: status === 'queued',
        status: word ?? (none ? '' : hidden('status') ? HIDDEN : 'unknown'),
        look: `slds-badge ${LOOKS[status] ?? ''}`
    };
}

// auditOf reads what dealseal keeps in the audit field. What is of another transaction, or was written by somebody else, says nothing.
function auditOf(text, transaction) {
    try {
        const a = JSON.parse(text);
        if (typeof a.tx === 'string' && a.tx && a.seq && (!transaction || a.tx === transaction)) {
            return a;
        }
    } catch {
        // no JSON, or none at all
    }
    return {};
}

function moment(text) {
    return { date: Number.isNaN(Date.parse(text)) ? undefined : text };
}

function isHTTPS(text) {
    return /^https:\/\//i.test(text ?? '');
}
