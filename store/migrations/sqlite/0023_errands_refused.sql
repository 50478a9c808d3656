-- What a CRM has refused is counted for a day by whoever watches over the daemon.
CREATE INDEX errands_refused ON errands (ended) WHERE fate = 'refused';
