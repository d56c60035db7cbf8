//! The codes of errors: one word for each, by which scripts and runbooks can tell errors apart.
//!
//! The words are part of the command line's contract: a word is never given another meaning, and one
//! that is not needed any more stays reserved. docs/errors.md is made of this table.

use serde::{Serialize, Serializer};

use super::Kind;

/// Makes [`Code`] from the table. The doc comment of a code is also its text in the users' documentation.
macro_rules! codes {
    ($($title:literal {
        $(#[doc = $meaning:literal] $code:ident = $word:literal, $kind:ident, $to_do:literal;)*
    })*) => {
        /// What failed; each has a word, a kind, and what to do about it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $meaning] $code,)*)*
        }

        impl Code {
            /// All codes, grouped under the titles of docs/errors.md.
            pub const GROUPS: &'static [(&'static str, &'static [Code])] =
                &[$(($title, &[$(Code::$code,)*]),)*];

            /// The word of the code in `--json`.
            pub fn word(self) -> &'static str {
                match self { $($(Code::$code => $word,)*)* }
            }

            /// The kind of each error with this code, and so the exit code.
            pub fn kind(self) -> Kind {
                match self { $($(Code::$code => Kind::$kind,)*)* }
            }

            /// One sentence.
            pub fn meaning(self) -> &'static str {
                match self { $($(Code::$code => $meaning.trim_ascii(),)*)* }
            }

            /// The hint for errors that have no hint of their own.
            pub fn what_to_do(self) -> &'static str {
                match self { $($(Code::$code => $to_do,)*)* }
            }
        }
    };
}

codes! {
    "Arguments and files that you give" {
        /// An argument or an environment variable is wrong, or two of them do not fit together.
        InvalidArguments = "invalid-arguments", Input,
            "see what the command takes: add --help to it";
        /// pgherd had to ask a question, and there is no terminal.
        ConfirmationNeeded = "confirmation-needed", Input,
            "agree beforehand with --yes, or run it in a terminal";
        /// There is no inventory at this path.
        InventoryNotFound = "inventory-not-found", Input,
            "write one with `pgherd init`, or name yours with -i FILE";
        /// The inventory is not valid YAML, or a key or a value in it is wrong.
        InventoryInvalid = "inventory-invalid", Input,
            "correct the line; docs/inventory.md has each key and its values";
        /// No host or member has this name.
        HostUnknown = "host-unknown", Input,
            "list the hosts: pgherd status";
        /// The host has no such unit, and its journal has nothing of one.
        UnitUnknown = "unit-unknown", Input,
            "without a unit, logs shows those of the cluster: pgherd logs HOST";
        /// A file that you name (an inventory, a key, a bundle, a folder) cannot be read or used.
        FileUnusable = "file-unusable", Input,
            "check the file's path, owner and mode: ls -l FILE";
        /// One of your templates cannot be read or rendered, or replaces no template of pgherd's.
        TemplateInvalid = "template-invalid", Input,
            "compare it with the template that it replaces: docs/templates.md";
        /// A secrets file, yours or the workspace's, has a mistake or lacks a password.
        SecretsInvalid = "secrets-invalid", Input,
            "correct the file; its form is in docs/inventory.md, under `secrets`";
        /// The output file exists already, or cannot be written.
        OutputUnwritable = "output-unwritable", Input,
            "name another file, or a folder that you may write to";
        /// The named run was not kept, or the name fits several runs.
        RunUnknown = "run-unknown", Input,
            "name one of the listed runs; its first characters are enough if they are unique";
        /// This machine has no record of a run of the cluster.
        RunNotKept = "run-not-kept", Failed,
            "start a run: pgherd up";
        /// There is no such image, or pgherd did not make it.
        ImageUnknown = "image-unknown", Input,
            "list the images: pgherd image list";
        /// The provider, the hosts or this build of pgherd cannot do this.
        Unsupported = "unsupported", Input,
            "see what each provider can do: docs/inventory.md and docs/drills.md";
        /// A setting of the provider (subnet, address, image, volume, region) does not fit what exists there.
        ProviderSettingUnusable = "provider-setting-unusable", Input,
            "change it in the inventory, under `provider` or at the host";
    }

    "The inventory and the hosts do not match" {
        /// The hosts have another cluster name, data directory, version or identity than the inventory says.
        InventoryContradictsHosts = "inventory-contradicts-hosts", Input,
            "correct the inventory so that it matches the hosts";
        /// The cluster's members are not those of the inventory.
        MembershipDiffers = "membership-differs", Input,
            "put the cluster's members into the inventory: docs/members.md";
        /// The cluster differs from the inventory, or is not healthy, and this verb needs a cluster that is as it should be.
        ClusterNotAsDeclared = "cluster-not-as-declared", Failed,
            "see what differs: pgherd plan; then correct it: pgherd up";
        /// The cluster's present state does not allow this.
        NotPossibleNow = "not-possible-now", Input,
            "see how the cluster is: pgherd status";
        /// There is no cluster of this name.
        ClusterNotFound = "cluster-not-found", Failed,
            "create it: pgherd up";
        /// A host is stopped or missing, or disappeared during the run.
        HostNotRunning = "host-not-running", Failed,
            "start what does not run: pgherd up";
        /// pgherd could not compare the hosts with the inventory.
        HostsNotCompared = "hosts-not-compared", Failed,
            "see which hosts can be reached: pgherd status";
        /// Containers, instances or networks differ from the inventory, and cannot be changed in place.
        InfrastructureDiffers = "infrastructure-differs", Failed,
            "correct the inventory, or create the host again";
    }

    "Other runs, and what belongs to somebody else" {
        /// Another run on this machine is working on the cluster.
        WorkspaceLocked = "workspace-locked", Failed,
            "wait until it has ended, and run the same command again";
        /// A run from another machine is working on the cluster: it has the lease on the hosts, or is creating them.
        LeaseHeld = "lease-held", Failed,
            "wait until it has ended, and run the same command again";
        /// This run got the lease on no host, so another run could work at the same time.
        LeaseNotTaken = "lease-not-taken", Failed,
            "check that root can lock /run/pgherd.lease on the hosts";
        /// The run lost its lease on the hosts and stopped: another run has taken the lease since.
        LeaseLost = "lease-lost", Failed,
            "check that this machine reaches the hosts, and run the same command again";
        /// A host belongs to another cluster, or pgherd cannot tell which cluster it belongs to.
        HostOfAnotherCluster = "host-of-another-cluster", Failed,
            "use hosts in the inventory that no other cluster has";
        /// A newer version of pgherd has worked on the host.
        HostOfNewerPgherd = "host-of-newer-pgherd", Failed,
            "use that version of pgherd or a newer one";
        /// A name that pgherd needs (of a container, network, security group or key pair) belongs to something that is not this cluster's.
        NameTaken = "name-taken", Failed,
            "give the cluster another name, or remove what has this name if nobody needs it";
        /// The host has something that pgherd would write, start or use, and that pgherd did not make.
        ForeignSoftware = "foreign-software", Failed,
            "remove it if nobody needs it, or use another host: docs/hosts.md";
        /// There is data that pgherd did not make for this cluster.
        ForeignData = "foreign-data", Failed,
            "save it elsewhere, or set postgresql.data_dir to another folder";
        /// Hosts are there that were made from the image.
        ImageInUse = "image-in-use", Failed,
            "remove the image once those hosts are gone";
        /// Others are connected to the cluster, and would be cut off.
        ClientsConnected = "clients-connected", Failed,
            "wait until they have disconnected, or agree to it with --despite-clients";
        /// Something is left of the cluster after its removal.
        LeftoversRemain = "leftovers-remain", Failed,
            "run `pgherd down` again: it removes the rest";
    }

    "This machine and the workspace" {
        /// A file of pgherd's own on this machine cannot be read or written.
        LocalFileFailed = "local-file-failed", Failed,
            "check the folder's owner and mode, and whether the disk is full: df -h";
        /// This machine could not do something that pgherd needs: start a program, make a key, take a signal.
        LocalSystemFailed = "local-system-failed", Failed,
            "check that ssh, ssh-keygen and the named program are installed on this machine";
        /// The workspace, or a file in it, does not belong only to you, so pgherd does not trust it.
        WorkspaceUntrusted = "workspace-untrusted", Input,
            "use a folder that belongs to you and is not a link";
        /// The workspace, or a file in it, is missing, and the cluster exists.
        WorkspaceMissing = "workspace-missing", Failed,
            "copy .pgherd/CLUSTER from the machine on which the cluster was made, or read it back from the hosts: pgherd recover";
        /// There is a workspace already, and a workspace is never replaced.
        WorkspaceExists = "workspace-exists", Input,
            "see how its cluster is: pgherd status; or move the folder away";
        /// A file in the workspace is damaged.
        WorkspaceDamaged = "workspace-damaged", Failed,
            "restore .pgherd/CLUSTER from a backup";
        /// A certificate or a key of the workspace is damaged, missing or cannot be used.
        CertificateUnusable = "certificate-unusable", Failed,
            "restore .pgherd/CLUSTER/pki from a backup";
        /// Certificates of the cluster have expired, or are not valid yet.
        CertificatesNotValid = "certificates-not-valid", Failed,
            "see when each expires: pgherd status; then make new ones: pgherd rotate certs";
    }

    "The shared state" {
        /// The place of the shared state does not answer, or its files cannot be read or written.
        StateUnreachable = "state-unreachable", Failed,
            "check that the place is mounted or reachable, and that you may write there";
        /// There is no shared state where there should be one.
        StateMissing = "state-missing", Failed,
            "see what is where: pgherd state";
        /// There is a shared state of this cluster already.
        StateExists = "state-exists", Input,
            "see it: pgherd state";
        /// The shared state and this machine's workspace have parted, or another run has written it meanwhile.
        StateConflict = "state-conflict", Failed,
            "see both: pgherd state";
        /// The shared state is damaged, or of a newer version of pgherd.
        StateDamaged = "state-damaged", Failed,
            "an older generation is beside it; or write this machine's workspace anew: pgherd state push";
        /// There is no private key that could decrypt the shared state.
        StateKeyMissing = "state-key-missing", Input,
            "see where it is looked for: docs/shared-state.md";
        /// Your private key does not decrypt the shared state, or cannot be used.
        StateKeyUnusable = "state-key-unusable", Input,
            "see which keys can be used: docs/shared-state.md";
    }

    "Connections to the hosts" {
        /// pgherd could not open an SSH connection to the host.
        SshUnreachable = "ssh-unreachable", Failed,
            "check that the host runs, and that its address and ssh.port are right";
        /// The host is behind a bastion, and the way to it ends there.
        BastionFailed = "bastion-failed", Failed,
            "log in to the bastion with plain ssh, from there to the host, and compare with ssh.proxy_jump";
        /// The host answered, and did not accept the SSH key or the user.
        SshPermissionDenied = "ssh-permission-denied", Failed,
            "check ssh.user and ssh.identity_file, and authorized_keys on the host";
        /// An SSH connection broke while it was in use.
        SshConnectionLost = "ssh-connection-lost", Failed,
            "run the same command again: every step can be repeated";
        /// The host shows another SSH host key than the known one.
        HostKeyMismatch = "host-key-mismatch", Failed,
            "find out why before you trust it: docs/security.md";
        /// The host's SSH key is not trusted yet.
        HostKeyUnknown = "host-key-unknown", Failed,
            "compare the key with the host's, and trust it: docs/hosts.md";
        /// Another host of the cluster answers at a host's address.
        HostsMixedUp = "hosts-mixed-up", Failed,
            "correct the hosts' addresses in the inventory";
        /// sshd on the host refuses to forward connections.
        SshForwardingRefused = "ssh-forwarding-refused", Failed,
            "allow it in sshd_config: AllowTcpForwarding local; then: systemctl reload ssh";
        /// sshd on the host opens too few sessions on a connection.
        SshSessionsRefused = "ssh-sessions-refused", Failed,
            "allow more in sshd_config: MaxSessions 10";
        /// The login on the host did not run pgherd's command.
        SshLoginUnusable = "ssh-login-unusable", Failed,
            "check that the user's shell is a plain sh or bash, without a forced command";
        /// The SSH user may not become root.
        NotRoot = "not-root", Failed,
            "allow the user to run sudo without a password, or set ssh.user to root";
        /// pgherd cannot read the answer of a host or a service, or a file on a host.
        AnswerUnusable = "answer-unusable", Failed,
            "look at the answer or the file; if it is as it should be, report this with the run's events.jsonl";
    }

    "Requirements of hosts" {
        /// pgherd does not support the host's operating system.
        SystemUnsupported = "system-unsupported", Failed,
            "use a host with one of the systems in docs/hosts.md";
        /// The host lacks something that pgherd needs.
        RequirementUnmet = "requirement-unmet", Failed,
            "give the host what it lacks: docs/hosts.md";
        /// The host's clock is wrong.
        ClockWrong = "clock-wrong", Failed,
            "set it, and check that it stays synchronized: timedatectl";
        /// A filesystem on the host has too little space.
        DiskFull = "disk-full", Failed,
            "free space on the host: df -h; df -i";
        /// Packages that pgherd needs are held back.
        PackagesHeld = "packages-held", Failed,
            "list them: apt-mark showhold; and release them: apt-mark unhold PACKAGE";
        /// The host reaches no package source.
        PackagesUnreachable = "packages-unreachable", Failed,
            "check the host's DNS, routes and proxy";
        /// A port that pgherd needs is in use.
        PortInUse = "port-in-use", Failed,
            "stop what listens there, or choose another port in the inventory";
    }

    "Steps and services" {
        /// A script on a host failed.
        ScriptFailed = "script-failed", Failed,
            "correct what its output names, and run the same command again: it goes on from there";
        /// Something did not finish, or did not reach the expected state, in time.
        StepTimedOut = "step-timed-out", Failed,
            "see how the cluster is: pgherd status; then run the same command again";
        /// A unit keeps crashing.
        ServiceKeepsDying = "service-keeps-dying", Failed,
            "see why: pgherd logs HOST UNIT";
        /// A service does not answer on its port.
        ServiceUnreachable = "service-unreachable", Failed,
            "see how the service is: pgherd status; and its journal: pgherd logs HOST UNIT";
        /// A service did not answer in time. What it was asked to do may still happen.
        ServiceTimedOut = "service-timed-out", Failed,
            "see what happened: pgherd status";
        /// A service answered, and refused.
        ServiceRefused = "service-refused", Failed,
            "look at its answer, and at its journal: pgherd logs HOST UNIT";
        /// A client cannot write or read through HAProxy.
        ClientsNotServed = "clients-not-served", Failed,
            "see where the ports lead: pgherd status; and why: pgherd verify";
        /// A planned change of leader was called off: clients of a pooler have transactions open that do not end.
        TransactionsOpen = "transactions-open", Failed,
            "end them, and run the same command again";
        /// A TLS connection to a service failed.
        TlsFailed = "tls-failed", Failed,
            "see the certificates: pgherd status; then make new ones: pgherd rotate certs";
    }

    "etcd, Patroni and PostgreSQL" {
        /// No etcd answers.
        EtcdUnreachable = "etcd-unreachable", Failed,
            "see why: pgherd logs HOST etcd; and start what does not run: pgherd up";
        /// etcd has lost its data, and pgherd cannot tell which database is the newest.
        EtcdDataLost = "etcd-data-lost", Failed,
            "bring all hosts back, and run the same command again: docs/recovery.md";
        /// Patroni does not answer on a member.
        PatroniUnreachable = "patroni-unreachable", Failed,
            "see why: pgherd logs HOST patroni; and start what does not run: pgherd up";
        /// Patroni is busy with something else.
        PatroniBusy = "patroni-busy", Failed,
            "wait until it has ended, and run the same command again";
        /// Patroni does not know the outcome of a change of leader yet.
        FailoverUndecided = "failover-undecided", Failed,
            "see who leads: pgherd status";
        /// The cluster has no leader.
        NoLeader = "no-leader", Failed,
            "see why: pgherd status; and docs/recovery.md";
        /// No replica can take over, or the named one cannot.
        NoCandidate = "no-candidate", Failed,
            "see how far the replicas are: pgherd status";
        /// The chosen member did not become the leader.
        NotPromoted = "not-promoted", Failed,
            "see who leads, and how the members are: pgherd status";
        /// The cluster changed between the question and the change.
        ClusterChanged = "cluster-changed", Failed,
            "run the same command again: it says what it would do now";
        /// The cluster is paused, so Patroni does not act.
        ClusterPaused = "cluster-paused", Failed,
            "resume it first: pgherd resume";
        /// PostgreSQL would not start with the inventory's parameters.
        ParametersRefused = "parameters-refused", Failed,
            "correct postgresql.parameters in the inventory";
        /// A connection to PostgreSQL failed, or was lost.
        PostgresqlUnreachable = "postgresql-unreachable", Failed,
            "see who leads and what answers: pgherd status";
        /// PostgreSQL refused a statement, or did not answer it.
        StatementFailed = "statement-failed", Failed,
            "see how the members are: pgherd status; and read their log: pgherd logs HOST patroni";
        /// Clients use all connections of PostgreSQL.
        ConnectionsExhausted = "connections-exhausted", Failed,
            "end sessions that nobody needs, or raise max_connections under postgresql.parameters";
        /// The superuser's role can no longer log in, or is no superuser.
        SuperuserBroken = "superuser-broken", Failed,
            "restore the role's rights in single-user mode: docs/recovery.md";
        /// A database is damaged.
        DataDamaged = "data-damaged", Failed,
            "restore what is missing, or copy the data from another member: docs/recovery.md";
        /// No host has the cluster's database any more, and its repository has backups of it, or may have.
        DatabaseLost = "database-lost", Failed,
            "have it back from its backups: pgherd restore --to latest";
        /// The databases on the hosts do not belong to one cluster, or are not those that etcd knows.
        DataDiffers = "data-differs", Failed,
            "find out which database is the right one, and move the other data directory away";
        /// A change of passwords, keys or certificates could not be completed.
        RotationIncomplete = "rotation-incomplete", Failed,
            "run the same command again: it continues where it stopped";
    }

    "Proof and drills" {
        /// The cluster is not healthy: a check failed.
        ClusterBroken = "cluster-broken", Broken,
            "see how it is: pgherd status; each check is in docs/verify.md";
        /// What pgherd could reach is healthy; it could not verify the rest.
        ProvenInPart = "proven-in-part", Broken,
            "bring back the missing hosts, and verify again: pgherd verify";
        /// A rehearsal could not restore the cluster, or what it restored was not whole.
        RestoreUnproven = "restore-unproven", Broken,
            "see what the repository holds: pgherd backups; then make a full backup: pgherd backup --full";
        /// A drill ran, and the cluster failed it.
        DrillFailed = "drill-failed", Broken,
            "see what clients saw: pgherd report";
        /// A drill could not run.
        DrillAborted = "drill-aborted", Failed,
            "see how the cluster is: pgherd status; then run the drill again";
        /// The cluster did not become whole again after a drill.
        ClusterNotRestored = "cluster-not-restored", Failed,
            "see what is missing: pgherd status; then repair it: pgherd up";
        /// A run would change something.
        ChangesPending = "changes-pending", Pending,
            "make the changes: pgherd up";
    }

    "The bucket with the backups" {
        /// There is no bucket of this name.
        BucketMissing = "bucket-missing", Failed,
            "make it at the store, or have `up` make it: docs/backups.md";
        /// The store does not know the access key, or the key may not do this.
        BucketDenied = "bucket-denied", Failed,
            "compare `s3_key` and `s3_secret` among the secrets with the store, and the key's rights with docs/iam-policy-bucket.json";
        /// The store does not answer this machine.
        BucketUnreachable = "bucket-unreachable", Failed,
            "check backup.s3.endpoint, this machine's way to it, and `ca_bundle`";
        /// The bucket is in another region, or its rules take backups away.
        BucketUnsuitable = "bucket-unsuitable", Failed,
            "change the bucket, or name another one: backup.s3";
        /// The store could not do something, or answers as no store does.
        BucketFailed = "bucket-failed", Failed,
            "read the store's message, and run the same command again";
    }

    "Docker" {
        /// No container engine answers.
        EngineUnreachable = "engine-unreachable", Failed,
            "see whether `docker ps` answers; if not, start the engine";
        /// Permission denied on the container engine's socket.
        EngineDenied = "engine-denied", Failed,
            "run pgherd with sudo, or join the engine's group";
        /// The container engine is too old, or could not do something.
        EngineFailed = "engine-failed", Failed,
            "read the engine's message and its journal: journalctl -u docker";
        /// The image of a host is missing, could not be built, or lacks something.
        ImageUnavailable = "image-unavailable", Failed,
            "name another image in the inventory, or find out why this one is not available";
        /// A network for the hosts cannot be created as pgherd needs it.
        NetworkUnsuitable = "network-unsuitable", Failed,
            "name another subnet under `provider` in the inventory";
        /// A host was created, and did not start.
        HostDidNotStart = "host-did-not-start", Failed,
            "run the same command again; if it fails again, look at the host's console or log";
    }

    "AWS" {
        /// There are no AWS credentials, or AWS does not accept them.
        AwsCredentials = "aws-credentials", Failed,
            "log in again (`aws sso login`), or check AWS_PROFILE and provider.profile";
        /// AWS does not answer.
        AwsUnreachable = "aws-unreachable", Failed,
            "check that provider.region is right, and that this machine reaches its endpoint";
        /// The credentials lack a permission.
        AwsDenied = "aws-denied", Failed,
            "docs/iam-policy.json is the smallest policy that is enough";
        /// The zone has no capacity for the instance type now.
        AwsNoCapacity = "aws-no-capacity", Failed,
            "run the same command again later, or give the host another zone or instance type";
        /// A quota of the account is used up.
        AwsQuota = "aws-quota", Failed,
            "request more in the Service Quotas console, or remove what is not needed";
        /// AWS throttles the account.
        AwsThrottled = "aws-throttled", Failed,
            "run the same command again: it continues from here";
        /// AWS refused a call for another reason.
        AwsFailed = "aws-failed", Failed,
            "read AWS's message; docs/aws.md lists the calls";
    }

    "Other errors" {
        /// Several things failed; each has a code of its own.
        SeveralFailures = "several-failures", Failed,
            "look at each of them: it has a code and a hint of its own";
        /// The input has several mistakes; each has a code of its own.
        SeveralMistakes = "several-mistakes", Input,
            "look at each of them: it has a code and a hint of its own";
        /// The run was stopped.
        Interrupted = "interrupted", Interrupted,
            "run the same command again: it goes on from here";
        /// You did not confirm.
        NotConfirmed = "not-confirmed", Interrupted,
            "run the same command again to be asked once more";
        /// pgherd has a bug: it found a contradiction in its own state.
        InternalError = "internal-error", Failed,
            "report it, with the message and the run's events.jsonl";
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}
