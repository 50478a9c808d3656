// A PKCS#11 module that passes everything on to another one, named by
// FAULTY_MODULE, and fails as the file FAULTY_ORDERS says: a line with a fault,
// and perhaps " once". Each presentation of a PIN is a line in FAULTY_LOGINS,
// each use of a key one in FAULTY_SIGNATURES: what was signed, in hexadecimal.
// With FAULTY_TALKS it prints PINs.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CK_PTR *
#define CK_DECLARE_FUNCTION(type, name) type name
#define CK_DECLARE_FUNCTION_POINTER(type, name) type(*name)
#define CK_CALLBACK_FUNCTION(type, name) type(*name)
#ifndef NULL_PTR
#define NULL_PTR 0
#endif
#include "pkcs11.h"

static CK_FUNCTION_LIST list;
static CK_FUNCTION_LIST_PTR real;
static int dead;

// ordered reports whether fault is asked for.
static int ordered(const char *fault) {
	char line[64] = "";
	const char *path = getenv("FAULTY_ORDERS");
	FILE *f = path ? fopen(path, "r") : NULL;
	if (!f)
		return 0;
	if (!fgets(line, sizeof line, f))
		line[0] = 0;
	fclose(f);
	line[strcspn(line, "\n")] = 0;
	char *space = strchr(line, ' ');
	if (space)
		*space = 0;
	if (strcmp(line, fault) != 0)
		return 0;
	if (space)
		truncate(path, 0);
	return 1;
}

// note appends a line to the file that a variable names, in one write: many
// processes share it.
static void note(const char *variable, const CK_BYTE *data, CK_ULONG n) {
	char line[2 * 256 + 2];
	const char *path = getenv(variable);
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	if (fd < 0)
		return;
	if (n > 256)
		n = 256;
	for (CK_ULONG i = 0; i < n; i++)
		snprintf(line + 2 * i, 3, "%02x", data[i]);
	line[2 * n] = '\n';
	if (write(fd, line, 2 * n + 1) < 0)
		abort(); // a count that is wrong would prove nothing
	close(fd);
}

static CK_RV SignInit(CK_SESSION_HANDLE s, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k) {
	if (dead || ordered("device")) {
		dead = 1; // until the process ends
		return CKR_DEVICE_ERROR;
	}
	if (ordered("session"))
		return CKR_SESSION_HANDLE_INVALID;
	if (ordered("active"))
		return CKR_OPERATION_ACTIVE;
	if (ordered("handle"))
		return CKR_OBJECT_HANDLE_INVALID;
	if (ordered("logged-out"))
		return real->C_Logout(s), CKR_USER_NOT_LOGGED_IN;
	if (ordered("mechanism"))
		return CKR_MECHANISM_INVALID;
	return real->C_SignInit(s, m, k);
}

static CK_RV GetSessionInfo(CK_SESSION_HANDLE s, CK_SESSION_INFO_PTR info) {
	if (ordered("lapse"))
		real->C_CloseSession(s);
	return real->C_GetSessionInfo(s, info);
}

static CK_RV FindObjectsInit(CK_SESSION_HANDLE s, CK_ATTRIBUTE_PTR template, CK_ULONG n) {
	if (ordered("find-hang"))
		for (;;)
			pause();
	if (ordered("find-crash"))
		raise(SIGSEGV);
	if (ordered("find-logged-out"))
		return real->C_Logout(s), CKR_USER_NOT_LOGGED_IN;
	if (ordered("find-nothing")) // the login ends between two calls: private objects are not there any more
		real->C_Logout(s);
	return real->C_FindObjectsInit(s, template, n);
}

static CK_RV GetAttributeValue(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR template, CK_ULONG n) {
	if (ordered("find-half")) // it ends when the key has been found and not been read
		real->C_Logout(s);
	return real->C_GetAttributeValue(s, o, template, n);
}

static CK_RV Sign(CK_SESSION_HANDLE s, CK_BYTE_PTR data, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR size) {
	if (ordered("crash"))
		raise(SIGSEGV);
	if (ordered("hang"))
		for (;;)
			pause();
	if (out)
		note("FAULTY_SIGNATURES", data, n);
	CK_RV rv = real->C_Sign(s, data, n, out, size);
	if (rv == CKR_OK && out && ordered("wrong"))
		out[*size / 2] ^= 1;
	return rv;
}

static CK_RV GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info) {
	CK_RV rv = real->C_GetTokenInfo(slot, info);
	if (ordered("final-try"))
		info->flags |= CKF_USER_PIN_FINAL_TRY;
	if (ordered("locked"))
		info->flags |= CKF_USER_PIN_LOCKED;
	return rv;
}

static CK_RV Login(CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG n) {
	note("FAULTY_LOGINS", (const CK_BYTE *)"login", 5);
	if (getenv("FAULTY_TALKS")) { // as much as pkcs11-spy
		fprintf(stderr, "PIN %.*s\n", (int)n, pin);
		printf("PIN %.*s\n", (int)n, pin);
		fflush(NULL);
	}
	return real->C_Login(s, user, pin, n);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out) {
	void *module = dlopen(getenv("FAULTY_MODULE"), RTLD_NOW);
	if (!module)
		return CKR_GENERAL_ERROR;
	CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR) = (CK_RV(*)(CK_FUNCTION_LIST_PTR_PTR))dlsym(module, "C_GetFunctionList");
	CK_RV rv = get(&real);
	if (rv != CKR_OK)
		return rv;
	list = *real;
	list.C_SignInit = SignInit;
	list.C_Sign = Sign;
	list.C_GetSessionInfo = GetSessionInfo;
	list.C_FindObjectsInit = FindObjectsInit;
	list.C_GetAttributeValue = GetAttributeValue;
	list.C_GetTokenInfo = GetTokenInfo;
	list.C_Login = Login;
	*out = &list;
	return CKR_OK;
}
