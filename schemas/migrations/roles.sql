-- The roles, which belong to the whole server, not to one database. Run by an administrator's
-- login before the migrations, each time: it only adds what is missing. Several databases of one
-- server may be migrated at the same moment, so "somebody was quicker" is not an error.
--
-- None of them can log in. The program's login is a member of inosec_loader (and inosec_admin, where
-- it may add tenants): GRANT inosec_loader, inosec_admin TO <login>;
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('inosec_migrator', ''),            -- owns everything
            ('inosec_loader', 'BYPASSRLS'),     -- writes; COPY FROM is refused to roles RLS binds
            ('inosec_correlator', 'BYPASSRLS'), -- reads what was detected, of all tenants
            ('inosec_admin', ''),               -- adds and suspends tenants, sets offsets
            ('inosec_view_owner', ''),          -- owns the API's views; RLS binds it
            ('inosec_api', '')                  -- reads the views
        ) AS roles (name, attributes)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN %s', wanted.name, wanted.attributes);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;

    -- The owner hands views over to their owner and may administer; the loader searches events
    -- through the API's views.
    FOR wanted IN
        SELECT * FROM (VALUES
            ('inosec_view_owner', 'inosec_migrator'),
            ('inosec_admin', 'inosec_migrator'),
            ('inosec_api', 'inosec_loader')
        ) AS members (name, member)
    LOOP
        IF NOT pg_has_role(wanted.member, wanted.name, 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT %I TO %I', wanted.name, wanted.member);
            EXCEPTION WHEN unique_violation OR internal_error THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;
