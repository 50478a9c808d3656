package pkcs11

import (
	"errors"

	"github.com/miekg/pkcs11"
)

// cure is what makes an operation work again after an error of the module.
type cure int

const (
	cureNone    cure = iota // the operation itself is wrong
	cureSession             // another session
	cureLogin               // login, and search the key again
	cureAgent               // begin again in a new process
	curePerson              // the PIN: nothing that a program may try
)

// cureOf is the ladder. What a vendor means by a code is uncertain, so that
// whatever might come from a device that has gone away begins again from
// nothing: CKR_DEVICE_ERROR, once there, stays until C_Finalize.
func cureOf(err error) cure {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return cureNone
	}
	switch code {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED,
		pkcs11.CKR_OPERATION_ACTIVE, pkcs11.CKR_OPERATION_NOT_INITIALIZED:
		return cureSession
	case pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_USER_NOT_LOGGED_IN:
		return cureLogin
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED,
		pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return curePerson
	case pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_MEMORY,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID,
		pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED,
		pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_FUNCTION_CANCELED:
		return cureAgent
	}
	return cureNone
}

// escalated makes of an error what the daemon is to know. An error that a new
// process may cure is fatal to this one.
func escalated(what string, err error) error {
	var own *agentError
	if errors.As(err, &own) {
		return err
	}
	e := &agentError{text: what, cause: err}
	switch cureOf(err) {
	case curePerson:
		e.code, e.permanent = codePIN, true
	case cureNone:
	default:
		e.code, e.fatal = codeDevice, true
	}
	return e
}
