//! What failed, as a word that scripts and runbooks can tell apart.
//!
//! The words are part of the command line's contract: a word is never given another meaning, and one
//! that is not needed any more stays reserved. docs/errors.md is made of this table.

use serde::{Serialize, Serializer};

use super::Kind;

/// Makes [`Code`] of the table: what a code means is its documentation, here and for users.
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
            /// All of them under the titles of docs/errors.md.
            pub const GROUPS: &'static [(&'static str, &'static [Code])] =
                &[$(($title, &[$(Code::$code,)*]),)*];

            /// The word that stands for it in `--json`.
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

            /// The way forward where an error gives none of its own.
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
        /// A question had to be asked, and there was no terminal to ask it on.
        ConfirmationNeeded = "confirmation-needed", Input,
            "agree beforehand with --yes, or run it at a terminal";
        /// There is no inventory at the path.
        InventoryNotFound = "inventory-not-found", Input,
            "write one with `pgherd init`, or name yours with -i FILE";
        /// The inventory's text is not YAML, or a key or a value in it is wrong.
        InventoryInvalid = "inventory-invalid", Input,
            "correct the line; docs/inventory.md has each key and its values";
        /// No host or member has the name.
        HostUnknown = "host-unknown", Input,
            "see which hosts there are: pgherd status";
        /// A file that you name (an inventory, a key, a bundle, a folder) cannot be read or used.
        FileUnusable = "file-unusable", Input,
            "look at the file's path, owner and mode: ls -l FILE";
        /// A template of yours cannot be read or rendered, or replaces none of pgherd's.
        TemplateInvalid = "template-invalid", Input,
            "compare it with the template that it replaces: docs/templates.md";
        /// A file of secrets, yours or the workspace's, has a mistake or lacks a password.
        SecretsInvalid = "secrets-invalid", Input,
            "correct the file; its form is in docs/inventory.md, under `secrets`";
        /// The file that is to be written is there already, or cannot be written.
        OutputUnwritable = "output-unwritable", Input,
            "name another file, or a folder in which you may write";
        /// A run is named that was not kept, or the name fits several.
        RunUnknown = "run-unknown", Input,
            "name one of the runs that are listed, by enough of its beginning";
        /// No run of the cluster was kept on this machine.
        RunNotKept = "run-not-kept", Failed,
            "make one: pgherd up";
        /// The provider, the hosts or this build of pgherd cannot do what was asked for.
        Unsupported = "unsupported", Input,
            "see what each provider can do: docs/inventory.md and docs/drills.md";
        /// What the inventory says of its provider (subnet, address, image, volume, region) does not fit what is there.
        ProviderSettingUnusable = "provider-setting-unusable", Input,
            "change it under `provider` or at the host in the inventory";
    }

    "Inventory and hosts do not fit together" {
        /// The hosts have another cluster name, data directory, version or identity than the inventory says.
        InventoryContradictsHosts = "inventory-contradicts-hosts", Input,
            "correct the inventory so that it says what the hosts have";
        /// The cluster's members are not those that the inventory declares.
        MembershipDiffers = "membership-differs", Input,
            "declare the members that the cluster has: docs/members.md";
        /// The cluster is not as the inventory says, or not as it should be, and this verb needs that.
        ClusterNotAsDeclared = "cluster-not-as-declared", Failed,
            "see what differs: pgherd plan; and make it so: pgherd up";
        /// The cluster, as it is now, does not allow what was asked for.
        NotPossibleNow = "not-possible-now", Input,
            "see how the cluster is: pgherd status";
        /// There is no cluster of this name.
        ClusterNotFound = "cluster-not-found", Failed,
            "make it: pgherd up";
        /// A host is stopped, missing, or went away while it was needed.
        HostNotRunning = "host-not-running", Failed,
            "start what does not run: pgherd up";
        /// Hosts could not be compared with the inventory.
        HostsNotCompared = "hosts-not-compared", Failed,
            "see which hosts can be reached: pgherd status";
        /// Containers, instances or networks are not as the inventory asks, and cannot be changed in place.
        InfrastructureDiffers = "infrastructure-differs", Failed,
            "correct the inventory, or make the host anew";
    }

    "Another run, and whose things are" {
        /// Another run on this machine is at work on the cluster.
        WorkspaceLocked = "workspace-locked", Failed,
            "wait until it has ended, and run the same command again";
        /// Another run, from elsewhere, is at work on the cluster: it has the lease on the hosts, or is making them.
        LeaseHeld = "lease-held", Failed,
            "wait until it has ended, and run the same command again";
        /// No host gave this run the lease, so that another run could be at work at the same time.
        LeaseNotTaken = "lease-not-taken", Failed,
            "see that root can lock /run/pgherd.lease on the hosts";
        /// The run lost its lease on the hosts and stopped: another run has had it since.
        LeaseLost = "lease-lost", Failed,
            "see that this machine reaches the hosts, and run the same command again";
        /// A host is another cluster's, or it cannot be told whose it is.
        HostOfAnotherCluster = "host-of-another-cluster", Failed,
            "name hosts in the inventory that no other cluster has";
        /// A newer pgherd has been at work on the host.
        HostOfNewerPgherd = "host-of-newer-pgherd", Failed,
            "use that version of pgherd, or a newer one";
        /// A name that is needed (of a container, network, security group or key pair) is taken by something that is not this cluster's.
        NameTaken = "name-taken", Failed,
            "give the cluster another name, or remove what has it if nobody needs it";
        /// Something is on the host that pgherd would write, start or use, and pgherd did not make it.
        ForeignSoftware = "foreign-software", Failed,
            "remove it if nobody needs it, or use another host: docs/hosts.md";
        /// There is data that pgherd did not make for this cluster.
        ForeignData = "foreign-data", Failed,
            "save it elsewhere, or set postgresql.data_dir to another folder";
        /// Others are connected to the cluster, and would be cut off.
        ClientsConnected = "clients-connected", Failed,
            "wait until they have ended, or agree to it with --despite-clients";
        /// Something of the cluster is left after it was removed.
        LeftoversRemain = "leftovers-remain", Failed,
            "run `pgherd down` again: it removes the rest";
    }

    "This machine and the workspace" {
        /// A file of pgherd's own on this machine cannot be read or written.
        LocalFileFailed = "local-file-failed", Failed,
            "look at the folder's owner and mode, and whether the disk is full: df -h";
        /// This machine could not do something that pgherd needs: start a program, make a key, take a signal.
        LocalSystemFailed = "local-system-failed", Failed,
            "see that ssh, ssh-keygen and the program that is named are installed here";
        /// The workspace, or a file in it, is not yours alone, so that it is not trusted.
        WorkspaceUntrusted = "workspace-untrusted", Input,
            "use a folder that belongs to you and that is no link";
        /// The workspace, or a file in it, is gone while the cluster is there.
        WorkspaceMissing = "workspace-missing", Failed,
            "restore .pgherd/CLUSTER from a backup, or copy it from where the cluster was made";
        /// A file in the workspace is damaged.
        WorkspaceDamaged = "workspace-damaged", Failed,
            "restore .pgherd/CLUSTER from a backup";
        /// A certificate or a key of the workspace is damaged, missing or cannot be used.
        CertificateUnusable = "certificate-unusable", Failed,
            "restore .pgherd/CLUSTER/pki from a backup";
        /// Certificates of the cluster have ended, or are not valid yet.
        CertificatesNotValid = "certificates-not-valid", Failed,
            "see when each ends: pgherd status; and make new ones: pgherd rotate certs";
    }

    "The way to the hosts" {
        /// No SSH connection to the host came about.
        SshUnreachable = "ssh-unreachable", Failed,
            "see that the host runs, and that its address and ssh.port are right";
        /// The host answered, and did not accept the SSH key or the user.
        SshPermissionDenied = "ssh-permission-denied", Failed,
            "look at ssh.user and ssh.identity_file, and at authorized_keys on the host";
        /// An SSH connection broke while it was in use.
        SshConnectionLost = "ssh-connection-lost", Failed,
            "run the same command again: every step can be repeated";
        /// The host shows another SSH host key than the one that is known.
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
            "let it in sshd_config: AllowTcpForwarding local; then: systemctl reload ssh";
        /// sshd on the host opens too few sessions on a connection.
        SshSessionsRefused = "ssh-sessions-refused", Failed,
            "let it open more in sshd_config: MaxSessions 10";
        /// The login on the host did not run what it was given.
        SshLoginUnusable = "ssh-login-unusable", Failed,
            "see that the user's shell is a plain sh or bash, without a forced command";
        /// The SSH user may not become root.
        NotRoot = "not-root", Failed,
            "let the user run sudo without a password, or set ssh.user to root";
        /// A host, a service or a file on a host says something that pgherd cannot read.
        AnswerUnusable = "answer-unusable", Failed,
            "look at what it says; if that is as it should be, report it with the run's events.jsonl";
    }

    "What hosts must offer" {
        /// The host's operating system is not one that pgherd knows.
        SystemUnsupported = "system-unsupported", Failed,
            "use a host with one of the systems in docs/hosts.md";
        /// The host lacks something that is needed.
        RequirementUnmet = "requirement-unmet", Failed,
            "give the host what it lacks: docs/hosts.md";
        /// The host's clock is wrong.
        ClockWrong = "clock-wrong", Failed,
            "set it, and see that it is kept: timedatectl";
        /// A file system on the host has too little room.
        DiskFull = "disk-full", Failed,
            "make room on the host: df -h; df -i";
        /// Packages that are needed are held back.
        PackagesHeld = "packages-held", Failed,
            "see which: apt-mark showhold; and let them come: apt-mark unhold PACKAGE";
        /// The host reaches no source of packages.
        PackagesUnreachable = "packages-unreachable", Failed,
            "look at the host's DNS, routes and proxy";
        /// A port that is needed is taken.
        PortInUse = "port-in-use", Failed,
            "stop what listens there, or choose another port in the inventory";
    }

    "Steps and services" {
        /// A script on a host failed.
        ScriptFailed = "script-failed", Failed,
            "correct what its output names, and run the same command again: it goes on from there";
        /// Something did not end, or did not become what it should, in time.
        StepTimedOut = "step-timed-out", Failed,
            "see how the cluster is: pgherd status; then run the same command again";
        /// A unit dies again and again.
        ServiceKeepsDying = "service-keeps-dying", Failed,
            "see why: pgherd logs HOST UNIT";
        /// A service does not answer on its port.
        ServiceUnreachable = "service-unreachable", Failed,
            "see how the service is: pgherd status; and its journal: pgherd logs HOST UNIT";
        /// A service was asked and gave no answer in time; what was asked for may still come about.
        ServiceTimedOut = "service-timed-out", Failed,
            "see what came of it: pgherd status";
        /// A service answered, and refused.
        ServiceRefused = "service-refused", Failed,
            "look at its answer, and at its journal: pgherd logs HOST UNIT";
        /// A client cannot write or read through HAProxy as it should.
        ClientsNotServed = "clients-not-served", Failed,
            "see where the ports lead: pgherd status; and why: pgherd verify";
        /// TLS with a service came to nothing.
        TlsFailed = "tls-failed", Failed,
            "see the certificates: pgherd status; and make new ones: pgherd rotate certs";
    }

    "etcd, Patroni and PostgreSQL" {
        /// No etcd answers.
        EtcdUnreachable = "etcd-unreachable", Failed,
            "see why: pgherd logs HOST etcd; and start what does not run: pgherd up";
        /// etcd has lost its data, and which database is the newest cannot be told.
        EtcdDataLost = "etcd-data-lost", Failed,
            "bring all hosts back, and run the same command again: docs/recovery.md";
        /// Patroni does not answer on a member.
        PatroniUnreachable = "patroni-unreachable", Failed,
            "see why: pgherd logs HOST patroni; and start what does not run: pgherd up";
        /// Patroni does something else at the moment.
        PatroniBusy = "patroni-busy", Failed,
            "wait until it has ended, and run the same command again";
        /// Patroni does not know yet what became of a change of leader.
        FailoverUndecided = "failover-undecided", Failed,
            "see who leads: pgherd status";
        /// The cluster has no leader.
        NoLeader = "no-leader", Failed,
            "see why: pgherd status; and docs/recovery.md";
        /// No replica, or not the one that was named, can take over.
        NoCandidate = "no-candidate", Failed,
            "see how far the replicas are: pgherd status";
        /// The member that was to lead did not become the leader.
        NotPromoted = "not-promoted", Failed,
            "see who leads, and how the members are: pgherd status";
        /// The cluster changed between the question and the change.
        ClusterChanged = "cluster-changed", Failed,
            "run the same command again: it tells what would be done now";
        /// The cluster is paused, so that Patroni would not act.
        ClusterPaused = "cluster-paused", Failed,
            "resume it first: pgherd resume";
        /// PostgreSQL would not start with the parameters that the inventory asks for.
        ParametersRefused = "parameters-refused", Failed,
            "correct postgresql.parameters in the inventory";
        /// No connection to PostgreSQL came about, or it was lost.
        PostgresqlUnreachable = "postgresql-unreachable", Failed,
            "see who leads and what answers: pgherd status";
        /// PostgreSQL refused a statement, or gave no answer to it.
        StatementFailed = "statement-failed", Failed,
            "see how the members are: pgherd status; and their log: pgherd logs HOST patroni";
        /// Clients have taken every connection that PostgreSQL gives.
        ConnectionsExhausted = "connections-exhausted", Failed,
            "end sessions that nobody needs, or raise max_connections under postgresql.parameters";
        /// The superuser's role cannot log in any more, or is none.
        SuperuserBroken = "superuser-broken", Failed,
            "give the role its rights back in single-user mode: docs/recovery.md";
        /// A database is damaged.
        DataDamaged = "data-damaged", Failed,
            "put back what is missing, or have the data copied from another member: docs/recovery.md";
        /// The databases on the hosts are not one cluster's, or not those that etcd knows.
        DataDiffers = "data-differs", Failed,
            "find out which data is the right one, and move the other data directory away";
        /// A change of passwords, keys or certificates could not be completed.
        RotationIncomplete = "rotation-incomplete", Failed,
            "run the same command again: it takes up where it stopped";
    }

    "Proof and drills" {
        /// The cluster does not hold: a check of the proof failed.
        ClusterBroken = "cluster-broken", Broken,
            "see how it is: pgherd status; each check is in docs/verify.md";
        /// What can be reached holds, and the rest could not be proven.
        ProvenInPart = "proven-in-part", Broken,
            "bring back the hosts that are missing, and prove it again: pgherd verify";
        /// A drill was played, and the cluster did not hold.
        DrillFailed = "drill-failed", Broken,
            "see what clients saw: pgherd report";
        /// A drill could not be played.
        DrillAborted = "drill-aborted", Failed,
            "see how the cluster is: pgherd status; then play it again";
        /// The cluster did not become whole again after a drill.
        ClusterNotRestored = "cluster-not-restored", Failed,
            "see what is missing: pgherd status; and put it right: pgherd up";
        /// Something would change.
        ChangesPending = "changes-pending", Pending,
            "make the changes: pgherd up";
    }

    "Docker" {
        /// No container engine answers.
        EngineUnreachable = "engine-unreachable", Failed,
            "see whether `docker ps` answers; if not, start the engine";
        /// You may not use the container engine.
        EngineDenied = "engine-denied", Failed,
            "run pgherd with sudo, or join the engine's group";
        /// The container engine is too old, or could not do something.
        EngineFailed = "engine-failed", Failed,
            "look at the engine's own words, and at its journal: journalctl -u docker";
        /// The image of a host is not there, could not be made, or lacks something.
        ImageUnavailable = "image-unavailable", Failed,
            "name another image in the inventory, or see why this one cannot be had";
        /// A network for the hosts cannot be had as it is needed.
        NetworkUnsuitable = "network-unsuitable", Failed,
            "name another subnet under `provider` in the inventory";
        /// A host was made, and did not come up.
        HostDidNotStart = "host-did-not-start", Failed,
            "run the same command again; if it stays so, look at the host's console or log";
    }

    "AWS" {
        /// There are no AWS credentials, or AWS does not take them.
        AwsCredentials = "aws-credentials", Failed,
            "log in again (`aws sso login`), or see AWS_PROFILE and provider.profile";
        /// AWS does not answer.
        AwsUnreachable = "aws-unreachable", Failed,
            "see that provider.region is right, and that this machine reaches its endpoint";
        /// The credentials lack a permission.
        AwsDenied = "aws-denied", Failed,
            "docs/iam-policy.json is the smallest policy that suffices";
        /// The zone has no room for the instance type now.
        AwsNoCapacity = "aws-no-capacity", Failed,
            "run the same command again later, or give the host another zone or instance type";
        /// A quota of the account is used up.
        AwsQuota = "aws-quota", Failed,
            "ask for more in the Service Quotas console, or remove what is not needed";
        /// AWS throttles the account.
        AwsThrottled = "aws-throttled", Failed,
            "run the same command again: it takes up from here";
        /// AWS refused a call for another reason.
        AwsFailed = "aws-failed", Failed,
            "look at AWS's own words; what is called is in docs/aws.md";
    }

    "All the rest" {
        /// Several things failed; each is told with a code of its own.
        SeveralFailures = "several-failures", Failed,
            "look at each of them: it has a code and a hint of its own";
        /// Several mistakes in what was given; each is told with a code of its own.
        SeveralMistakes = "several-mistakes", Input,
            "look at each of them: it has a code and a hint of its own";
        /// The run was stopped.
        Interrupted = "interrupted", Interrupted,
            "run the same command again: it goes on from here";
        /// What was asked about was not confirmed.
        NotConfirmed = "not-confirmed", Interrupted,
            "run the same command again to be asked once more";
        /// pgherd contradicts itself: a mistake in pgherd.
        InternalError = "internal-error", Failed,
            "report it, with the message and the run's events.jsonl";
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}
