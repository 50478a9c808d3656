import { createElement } from 'lwc';
import { getRecord, notifyRecordUpdateAvailable } from 'lightning/uiRecordApi';
import { setup } from '@sa11y/jest';
import Panel from 'c/dealsealPanel';

const TX = 'tx-01';
const SEALED = '2026-11-30T10:00:00.000+0000';

// record is what Lightning Data Service answers for a record with these values.
const record = (values) => ({ fields: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { value, displayValue: null }])) });

const signed = {
    Sealed_ID__c: TX,
    Sealed_Status__c: 'Signed',
    Sealed_At__c: SEALED,
    Sealed_Link__c: 'https://acme.lightning.example/lightning/r/ContentDocument/069000000000001AAA/view',
    Sealed_Audit__c: JSON.stringify({ tx: TX, seq: 7, status: 'signed', level: 'B-LTA', signed_at: SEALED }),
    Sealed_Drift__c: null
};
const none = Object.fromEntries(Object.keys(signed).map((name) => [name, null]));
const queued = { ...none, Sealed_ID__c: TX, Sealed_Status__c: 'Queued', Sealed_Audit__c: JSON.stringify({ tx: TX, seq: 1, status: 'queued' }) };

function open(objectApiName = 'Opportunity') {
    const element = createElement('c-dealseal-panel', { is: Panel });
    Object.assign(element, { recordId: '006000000000001AAA', objectApiName });
    document.body.appendChild(element);
    return element;
}

const settled = () => Promise.resolve().then(() => Promise.resolve());

async function show(element, values) {
    getRecord.emit(record(values));
    await settled();
    return rowsOf(element);
}

// rowsOf are the rows that people see, by their labels.
function rowsOf(element) {
    const rows = {};
    for (const row of element.shadowRoot.querySelectorAll('.row')) {
        const date = row.querySelector('lightning-formatted-date-time');
        rows[row.querySelector('dt').textContent] = date ? date.value : row.querySelector('dd').textContent;
    }
    return rows;
}

const badge = (element) => element.shadowRoot.querySelector('.slds-badge').className;
const news = (element) => element.shadowRoot.querySelector('[aria-live]').textContent;

beforeAll(() => setup());

afterEach(() => {
    jest.useRealTimers();
    while (document.body.firstChild) {
        document.body.removeChild(document.body.firstChild);
    }
    jest.clearAllMocks();
});

it('asks for the mapped fields of its object alone, each as optional', async () => {
    open();
    await settled();
    const asked = getRecord.getLastConfig();
    expect(asked.recordId).toBe('006000000000001AAA');
    expect(asked.fields).toBeUndefined();
    expect([...asked.optionalFields].sort()).toEqual(Object.keys(signed).map((n) => `Opportunity.${n}`).sort());
});

it('shows a sealed contract', async () => {
    const element = open();
    const rows = await show(element, signed);
    expect(rows).toEqual({
        Status: 'Signed',
        Transaction: TX,
        Level: 'B-LTA',
        'Sealed at': SEALED,
        Document: 'Sealed document (opens in a new tab)',
        Details: 'Status page (opens in a new tab)'
    });
    expect(badge(element)).toContain('slds-theme_success');
    const links = [...element.shadowRoot.querySelectorAll('a')];
    expect(links.map((a) => a.getAttribute('href'))).toEqual([signed.Sealed_Link__c, `https://seal.example.com/deals/${TX}`]);
    expect(links.every((a) => a.rel === 'noopener noreferrer')).toBe(true);
});

it.each([
    ['Held', 'held', 'slds-theme_warning'],
    ['Failed', 'failed', 'slds-theme_error'],
    ['Action Required', 'action_required', 'slds-theme_warning'],
    ['Refused', 'refused', 'slds-theme_error']
])('says why a contract is %s', async (word, status, look) => {
    const element = open();
    const audit = JSON.stringify({ tx: TX, seq: 3, status, reason: 'the amount is missing' });
    const rows = await show(element, { ...none, Sealed_ID__c: TX, Sealed_Status__c: word, Sealed_Audit__c: audit });
    expect(rows).toEqual({ Status: word, Transaction: TX, Reason: 'the amount is missing', Details: 'Status page (opens in a new tab)' });
    expect(badge(element)).toContain(look);
});

it('says what differs', async () => {
    const rows = await show(open(), { ...signed, Sealed_Drift__c: 'Contract differs from CRM: Amount' });
    expect(rows.Differs).toBe('Contract differs from CRM: Amount');
});

it('says so where there is no contract', async () => {
    const element = open();
    expect(await show(element, none)).toEqual({});
    expect(element.shadowRoot.textContent).toContain('There is none yet.');
});

it('says which fields are hidden, and shows the others', async () => {
    const { Sealed_Status__c, Sealed_Link__c, ...visible } = signed;
    const rows = await show(open(), visible);
    expect(rows).toMatchObject({ Status: 'Signed', Document: 'not visible to you', Level: 'B-LTA' }); // the audit record has the status, too
    const { Sealed_Audit__c, ...less } = visible;
    expect(await show(open(), less)).toMatchObject({ Status: 'not visible to you', Transaction: TX, Level: 'not visible to you' });
    expect((await show(open(), {})).Transaction).toBe('not visible to you');
});

it.each([['somebody’s note'], ['{"tx":"tx-99","seq":7,"level":"B-LTA"}'], ['{"tx":"tx-01","level":"B-LTA"}'], ['null'], ['[]']])(
    'believes no audit record but that of the transaction: %s',
    async (audit) => {
        const rows = await show(open(), { ...signed, Sealed_Audit__c: audit });
        expect(rows.Level).toBeUndefined();
        expect(rows.Status).toBe('Signed');
    }
);

it('makes no link of what is no https address', async () => {
    const element = open();
    const rows = await show(element, { ...signed, Sealed_Link__c: 'javascript:alert(1)' });
    expect(rows.Document).toBe('javascript:alert(1)');
    expect(element.shadowRoot.querySelector('a[href^="javascript"]')).toBeNull();
});

it('announces a change, and not what was there from the beginning', async () => {
    const element = open();
    await show(element, queued);
    expect(news(element)).toBe('');
    await show(element, signed);
    expect(news(element)).toBe('Contract: Signed');
});

it('looks again when it is told to', async () => {
    const element = open();
    await show(element, signed);
    element.shadowRoot.querySelector('lightning-button-icon').click();
    expect(notifyRecordUpdateAvailable).toHaveBeenCalledWith([{ recordId: '006000000000001AAA' }]);
});

it('looks by itself while a contract is made, for ten minutes and no longer', async () => {
    jest.useFakeTimers();
    const element = open();
    await show(element, queued);
    jest.advanceTimersByTime(60 * 60 * 1000);
    expect(notifyRecordUpdateAvailable).toHaveBeenCalledTimes(40);
    element.shadowRoot.querySelector('lightning-button-icon').click();
    jest.advanceTimersByTime(15 * 1000);
    expect(notifyRecordUpdateAvailable).toHaveBeenCalledTimes(42);
    await show(element, signed);
    jest.advanceTimersByTime(60 * 60 * 1000);
    expect(notifyRecordUpdateAvailable).toHaveBeenCalledTimes(42);
});

it('stops with the page', async () => {
    jest.useFakeTimers();
    const element = open();
    await show(element, queued);
    document.body.removeChild(element);
    jest.advanceTimersByTime(60 * 60 * 1000);
    expect(notifyRecordUpdateAvailable).not.toHaveBeenCalled();
});

it('shows each contract of an object whose rules write to different fields', async () => {
    const element = open('Order');
    getRecord.emit(record({ First_Status__c: 'Fertig', First_ID__c: TX, Second_Status__c: null }));
    await settled();
    const sections = [...element.shadowRoot.querySelectorAll('section')];
    expect(sections.map((s) => s.getAttribute('aria-label'))).toEqual(['Contract 1', 'Contract 2']);
    expect(sections[1].textContent).toContain('There is none yet.');
    expect(badge(element)).toContain('slds-theme_success');
});

it('says what went wrong', async () => {
    const element = open();
    getRecord.error({ message: 'The requested resource does not exist' });
    await settled();
    expect(element.shadowRoot.querySelector('[role=alert]').textContent).toContain('The requested resource does not exist');
    await show(element, signed);
    expect(element.shadowRoot.querySelector('[role=alert]')).toBeNull();
});

it('says that there is nothing to say of other objects', async () => {
    const element = open('Case');
    await settled();
    expect(element.shadowRoot.querySelector('[role=alert]').textContent).toContain('Case');
});

it.each([['nothing', none], ['a sealed contract', signed], ['hidden fields', {}]])('is accessible with %s', async (_, values) => {
    const element = open();
    await show(element, values);
    await expect(element).toBeAccessible();
});
