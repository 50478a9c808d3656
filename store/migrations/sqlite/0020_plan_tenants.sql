-- Whose deals were made by a plan is asked when a template is gone, of one deal and not of all.
DROP INDEX sealings_plan;
CREATE INDEX sealings_plan ON sealings (plan, tenant);
