# SPDX-License-Identifier: Apache-2.0
"""Dispatch: the only list of which handler decides which command."""

from collections.abc import Callable
from typing import assert_never

from sparecode_node.statemachine import commands
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.handlers import (
    administrators,
    agent_keys,
    agents,
    alarms,
    approvals,
    authentication,
    authorities,
    browser_logins,
    cluster,
    emergency_access,
    epochs,
    keys,
    membership,
    moves,
    notices,
    passkeys,
    policy,
    radius,
    reclaimed_users,
    resets,
    retention,
    sealed_codes,
    second_factors,
    segments,
    sessions,
    set_ends,
    tokens,
    users,
)
from sparecode_node.statemachine.results import Applied, BarrierPassed, Result


def decide(applying: Applying, again: Callable[[Applying], Result]) -> Result:
    """
    Decide a command and write its changes.

    *again* decides the waiting change that this command approves (P3).
    """
    return _handle(applying, again) or Applied(index=applying.index)


def _handle(applying: Applying, again: Callable[[Applying], Result]) -> Result | None:
    """Return the handler's result; None: applied, without further data."""
    match applying.call.command:
        case commands.InitializeCluster() as command:
            return cluster.initialize_cluster(applying, command)
        case commands.RaiseFeatureLevel() as command:
            cluster.raise_feature_level(applying, command)
            return None
        case commands.CreateBackup() as command:
            return cluster.create_backup(applying, command)
        case commands.NoteBackup() as command:
            cluster.note_backup(applying, command)
            return None
        case commands.NoteRefusedCalls() as command:
            cluster.note_refused_calls(applying, command)
            return None
        case commands.NoteSkipStatement() as command:
            return cluster.note_skip_statement(applying, command)
        case commands.BeginEpoch() as command:
            return epochs.begin_epoch(applying, command)
        case commands.OpenCluster() as command:
            return epochs.open_cluster(applying, command)
        case commands.CreateJoinTicket() as command:
            return membership.create_join_ticket(applying, command)
        case commands.AdmitNode() as command:
            return membership.admit_node(applying, command)
        case commands.AddMember() as command:
            return membership.add_member(applying, command)
        case commands.RemoveMember() as command:
            return membership.remove_member(applying, command)
        case commands.RenewCertificate() as command:
            return membership.renew_certificate(applying, command)
        case commands.NoteMemberKey() as command:
            return membership.note_member_key(applying, command)
        case commands.NoteAuthorityKeys() as command:
            return authorities.note_authority_keys(applying, command)
        case commands.RetireAuthority() as command:
            return authorities.retire_authority(applying, command)
        case commands.KeepAuthorities() as command:
            return authorities.keep_authorities(applying, command)
        case commands.ReplaceAuthorities() as command:
            return authorities.replace_authorities(applying, command)
        case commands.AnnounceAuthority() as command:
            return authorities.announce_authority(applying, command)
        case commands.FinishAuthorities() as command:
            return authorities.finish_authorities(applying, command)
        case commands.PrepareMove() as command:
            return moves.prepare_move(applying, command)
        case commands.FreezeUsers() as command:
            return moves.freeze_users(applying, command)
        case commands.ExportMovedUsers() as command:
            return moves.export_moved_users(applying, command)
        case commands.ImportMovedUsers() as command:
            return moves.import_moved_users(applying, command)
        case commands.ActivateMove() as command:
            return moves.activate_move(applying, command)
        case commands.CancelMove() as command:
            return moves.cancel_move(applying, command)
        case commands.EndMove() as command:
            return moves.end_move(applying, command)
        case commands.ReclaimMove() as command:
            return reclaimed_users.reclaim_move(applying, command)
        case commands.DeleteMovedUsers() as command:
            return moves.delete_moved_users(applying, command)
        case commands.NoteSegments() as command:
            return segments.note_segments(applying, command)
        case commands.DeclareSegmentsLost() as command:
            return segments.declare_segments_lost(applying, command)
        case commands.NoteArchive() as command:
            return retention.note_archive(applying, command)
        case commands.ConfirmArchive() as command:
            return retention.confirm_archive(applying, command)
        case commands.WithdrawArchive() as command:
            return retention.withdraw_archive(applying, command)
        case commands.RemoveSegments() as command:
            return retention.remove_segments(applying, command)
        case commands.OpenSession() as command:
            return sessions.open_session(applying, command)
        case commands.Reauthenticate() as command:
            return sessions.reauthenticate(applying, command)
        case commands.EndSession() as command:
            return sessions.end_session(applying, command)
        case commands.CloseSession() as command:
            sessions.close_session(applying, command)
            return None
        case commands.TouchSessions() as command:
            sessions.touch_sessions(applying, command)
            return None
        case commands.StartBrowserLogin() as command:
            return browser_logins.start_browser_login(applying, command)
        case commands.ApproveBrowserLogin() as command:
            return browser_logins.approve_browser_login(applying, command)
        case commands.RefuseBrowserLogin() as command:
            return browser_logins.refuse_browser_login(applying, command)
        case commands.CollectBrowserLogin() as command:
            return browser_logins.collect_browser_login(applying, command)
        case commands.CreateUser() as command:
            return users.create_user(applying, command)
        case commands.UpdateUser() as command:
            return users.update_user(applying, command)
        case commands.DeleteUser() as command:
            return users.delete_user(applying, command)
        case commands.UnlockUser() as command:
            return users.unlock_user(applying, command)
        case commands.EnrollToken() as command:
            return tokens.enroll_token(applying, command)
        case commands.AssignToken() as command:
            return tokens.assign_token(applying, command)
        case commands.SetPin() as command:
            return tokens.set_pin(applying, command)
        case commands.UnassignToken() as command:
            return tokens.unassign_token(applying, command)
        case commands.EnableToken() as command:
            return tokens.enable_token(applying, command)
        case commands.DisableToken() as command:
            return tokens.disable_token(applying, command)
        case commands.UpdateToken() as command:
            return tokens.update_token(applying, command)
        case commands.DeleteToken() as command:
            return tokens.delete_token(applying, command)
        case commands.ReplaceToken() as command:
            return tokens.replace_token(applying, command)
        case commands.ResynchronizeToken() as command:
            return tokens.resynchronize_token(applying, command)
        case commands.ClearPin() as command:
            return tokens.clear_pin(applying, command)
        case commands.ReinstateToken() as command:
            return emergency_access.reinstate_token(applying, command)
        case commands.SaveEmergencyAccess() as command:
            return emergency_access.save_emergency_access(applying, command)
        case commands.IssueFixedTokencode() as command:
            return emergency_access.issue_fixed_tokencode(applying, command)
        case commands.IssueTokencodesInBulk() as command:
            return emergency_access.issue_in_bulk(applying, command)
        case commands.RequestBulkIssue() as command:
            return emergency_access.request_bulk_issue(applying, command)
        case commands.DisableEmergencyAccess() as command:
            return emergency_access.disable_emergency_access(applying, command)
        case commands.OpenSealedCodes() as command:
            return sealed_codes.open_sealed_codes(applying, command)
        case commands.NoteSealedCodes() as command:
            sealed_codes.note_sealed_codes(applying, command)
            return None
        case commands.NoteEndedSets():
            return set_ends.note_ended_sets(applying)
        case commands.Authenticate() as command:
            return authentication.authenticate(applying, command)
        case commands.ContinueAuthentication() as command:
            return authentication.continue_authentication(applying, command)
        case commands.RegisterAgent() as command:
            return agents.register_agent(applying, command)
        case commands.UpdateAgent() as command:
            return agents.update_agent(applying, command)
        case commands.RemoveAgent() as command:
            return agents.remove_agent(applying, command)
        case commands.DenyCertificate() as command:
            return agents.deny_certificate(applying, command)
        case commands.AllowCertificate() as command:
            return agents.allow_certificate(applying, command)
        case commands.RegisterRadiusClient() as command:
            return radius.register_radius_client(applying, command)
        case commands.UpdateRadiusClient() as command:
            return radius.update_radius_client(applying, command)
        case commands.RotateRadiusSecret() as command:
            return radius.rotate_radius_secret(applying, command)
        case commands.CreateAgentKey() as command:
            return agent_keys.create_agent_key(applying, command)
        case commands.SaveChannel() as command:
            return notices.save_channel(applying, command)
        case commands.RemoveChannel() as command:
            return notices.remove_channel(applying, command)
        case commands.AcknowledgeNotices() as command:
            return notices.acknowledge_notices(applying, command)
        case commands.FailNotices() as command:
            return notices.fail_notices(applying, command)
        case commands.SendNoticesAgain() as command:
            return notices.send_notices_again(applying, command)
        case commands.RaiseAlarm() as command:
            return alarms.raise_alarm(applying, command)
        case commands.CreateAdministrator() as command:
            return administrators.create_administrator(applying, command)
        case commands.UpdateAdministrator() as command:
            return administrators.update_administrator(applying, command)
        case commands.RemoveAdministrator() as command:
            return administrators.remove_administrator(applying, command)
        case commands.ChangePassword() as command:
            return administrators.change_password(applying, command)
        case commands.ResetAdministrator() as command:
            return resets.reset_administrator(applying, command)
        case commands.CancelReset() as command:
            return resets.cancel_reset(applying, command)
        case commands.SetSecondFactor() as command:
            return second_factors.set_second_factor(applying, command)
        case commands.RemoveSecondFactor() as command:
            return second_factors.remove_second_factor(applying, command)
        case commands.RegisterPasskey() as command:
            return passkeys.register_passkey(applying, command)
        case commands.RemovePasskey() as command:
            return passkeys.remove_passkey(applying, command)
        case commands.UpdatePolicy() as command:
            return policy.update_policy(applying, command)
        case commands.ActivateDueKey() as command:
            return keys.activate_due_key(applying, command)
        case commands.ActivateKey() as command:
            return keys.activate_key(applying, command)
        case commands.ReplaceSeals() as command:
            return keys.replace_seals(applying, command)
        case commands.RetireKey() as command:
            return keys.retire_key(applying, command)
        case commands.Approve() as command:
            return approvals.approve(applying, command, again)
        case commands.Reject() as command:
            return approvals.reject(applying, command)
        case commands.TransferPrimary():
            return None  # Replication carries it out.
        case commands.PassBarrier():
            return BarrierPassed(index=applying.index, at_ms=applying.now_ms)
        case _ as never:
            assert_never(never)
